// An authorization server for the end-to-end tests: node-oidc-provider with
// keys made at start, on a free port of the loopback interface. The parent
// passes the clients as JSON in OIDC_CLIENTS ([{"id", "secret"}], a client
// without a secret being public) and reads one line of JSON from standard
// output, which names the issuer.
//
// Access tokens are JWTs (RFC 9068): whoever asks for the resource
// "urn:e2e:<alg>" gets one signed by that algorithm, everyone else RS256.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const algorithms = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519'],
};
const resourceOf = (alg) => `urn:e2e:${alg}`;
const redirectURI = 'http://127.0.0.1/callback';

const keys = Object.entries(algorithms).map(([alg, [type, options]]) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  kid: `e2e-${alg}`,
  alg,
  use: 'sig',
}));

const clients = JSON.parse(process.env.OIDC_CLIENTS).map(({ id, secret }) => (secret
  ? {
    client_id: id,
    client_secret: secret,
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }
  : {
    client_id: id,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'],
    redirect_uris: [redirectURI],
    response_types: ['code'],
  }));

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys },
    cookies: { keys: [crypto.randomUUID()] },
    scopes: ['openid'],
    findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    // The session that an authorization code was issued in, as sid, so that
    // it can be revoked.
    extraTokenClaims: (ctx, token) => (token.sessionUid ? { sid: token.sessionUid } : undefined),
    features: {
      clientCredentials: { enabled: true },
      // Any name and any password log in.
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resourceOf('RS256'),
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource,
          scope: 'openid',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 600,
          jwt: { sign: { alg: resource.slice(resourceOf('').length) } },
        }),
      },
    },
  });
  provider.on('server_error', (ctx, err) => console.error(err));
  server.on('request', provider.callback());
  console.log(JSON.stringify({ issuer, redirect_uri: redirectURI, resources: Object.keys(algorithms).map(resourceOf) }));
});

// Nobody is left to stop the server when the test process is gone.
process.stdin.on('end', () => process.exit(0)).resume();
