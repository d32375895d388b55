// An authorization server for the end-to-end tests: node-oidc-provider with
// keys made at start, on a free port of the loopback interface. The parent
// passes the clients as JSON in OIDC_CLIENTS ([{"id", "secret", "jwks", "sid",
// "signed"}], a client without secret and jwks being public) and reads one line of JSON from standard
// output, which names the issuer. What the server tells about the tokens of a
// client with "sid", and what these say themselves, names the user's session. A
// client with "signed" may have introspection answered by a JWT.
//
// Access tokens are JWTs (RFC 9068): whoever asks for the resource
// "urn:e2e:<alg>" gets one signed by that algorithm, everyone else RS256; and for
// "urn:e2e:opaque" an opaque one. Refresh tokens are opaque. Confidential clients
// get one with each code.
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
const opaque = resourceOf('opaque');
const redirectURI = 'http://127.0.0.1/callback';

const keys = Object.entries(algorithms).map(([alg, [type, options]]) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  kid: `e2e-${alg}`,
  alg,
  use: 'sig',
}));

const clients = JSON.parse(process.env.OIDC_CLIENTS).map(({ id, secret, jwks, sid, signed }) => (secret || jwks
  ? {
    client_id: id,
    application_type: 'native',
    ...(jwks
      ? { jwks, token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256' }
      : { client_secret: secret, token_endpoint_auth_method: 'client_secret_basic' }),
    ...(signed && { introspection_signed_response_alg: 'RS256' }),
    grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
    redirect_uris: [redirectURI],
    response_types: ['code'],
    // By this the server keeps the session with the client's tokens.
    ...(sid && { backchannel_logout_uri: 'http://127.0.0.1/logout', backchannel_logout_session_required: true }),
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
    extraTokenClaims: (ctx, token) => {
      const sid = token.sid ?? token.sessionUid;
      return sid ? { sid } : undefined;
    },
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      jwtIntrospection: { enabled: true },
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      // Any name and any password log in.
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resourceOf('RS256'),
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          audience: resource,
          scope: 'openid',
          accessTokenTTL: 600,
          ...(resource === opaque
            ? { accessTokenFormat: 'opaque' }
            : { accessTokenFormat: 'jwt', jwt: { sign: { alg: resource.slice(resourceOf('').length) } } }),
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
