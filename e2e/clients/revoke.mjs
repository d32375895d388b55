// Revokes tokens with client libraries from npm. Reads
//
//	{"endpoint": url, "issuer": url, "attempts": [{"library", "method", "client_id", "client_secret", "key", "token"}]}
//
// from standard input, key being a private JWK, and prints one answer for each
// attempt: {"error": code}, empty for a success, and what the library made of it.
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import { ClientCredentials } from 'simple-oauth2';

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { endpoint, issuer, attempts } = JSON.parse(Buffer.concat(chunks).toString());

const metadata = { issuer, revocation_endpoint: endpoint };

async function privateKey(jwk) {
	const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: jwk.crv }, false, ['sign']);
	return { key, kid: jwk.kid };
}

// Both libraries by panva name their authentication methods alike.
async function authentication(library, a) {
	switch (a.method) {
		case 'client_secret_basic': return library.ClientSecretBasic(a.client_secret);
		case 'client_secret_post': return library.ClientSecretPost(a.client_secret);
		case 'client_secret_jwt': return library.ClientSecretJwt(a.client_secret);
		case 'private_key_jwt': return library.PrivateKeyJwt(await privateKey(a.key));
		case 'none': return library.None();
		default: throw new Error(`no such method: ${a.method}`);
	}
}

// A refusal with a challenge is reported by the challenge alone; the error code
// is in the body, as with any other refusal.
async function code(e) {
	if (e.error) return e.error;
	const body = await (e.response ?? e.cause?.response)?.json();
	return body?.error ?? 'unknown';
}

const libraries = {
	'openid-client': async (a) => {
		const config = new openid.Configuration(metadata, a.client_id, undefined, await authentication(openid, a));
		openid.allowInsecureRequests(config); // the edge listens on loopback, without TLS
		try {
			await openid.tokenRevocation(config, a.token, { token_type_hint: 'access_token' });
		} catch (e) {
			return { error: await code(e), detail: `${e.name} ${e.code}` };
		}
		return { error: '' };
	},
	'oauth4webapi': async (a) => {
		const answer = await oauth.revocationRequest(metadata, { client_id: a.client_id }, await authentication(oauth, a), a.token,
			{ [oauth.allowInsecureRequests]: true });
		try {
			await oauth.processRevocationResponse(answer);
		} catch (e) {
			return { error: await code(e), detail: `${e.name} ${e.code}` };
		}
		return { error: '' };
	},
	'simple-oauth2': async (a) => {
		const url = new URL(endpoint);
		const client = new ClientCredentials({
			client: { id: a.client_id, secret: a.client_secret },
			auth: { tokenHost: url.origin, revokePath: url.pathname },
			options: { authorizationMethod: a.method === 'client_secret_basic' ? 'header' : 'body' },
		});
		try {
			await client.createToken({ access_token: a.token }).revoke('access_token');
		} catch (e) {
			return { error: e.data?.payload?.error ?? 'unknown', detail: `${e.name} ${e.message}` };
		}
		return { error: '' };
	},
};

const answers = [];
for (const a of attempts) {
	try {
		answers.push(await libraries[a.library](a));
	} catch (e) {
		answers.push({ error: 'thrown', detail: e.stack });
	}
}
process.stdout.write(JSON.stringify(answers));
