// A real OpenID provider that the project did not write (npm oidc-provider, MIT), with one page of its own:
// whoever names an account is that account. Access tokens for a resource are JWTs (RFC 9068).
import Provider from 'oidc-provider';
import { readFileSync } from 'node:fs';

const given = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const provider = new Provider(given.issuer, {
  clients: [
    {
      client_id: 'epicrisis',
      client_secret: given.secret,
      redirect_uris: given.redirect_uris,
      response_types: ['code'],
      grant_types: ['authorization_code'],
    },
    {
      client_id: 'night-job',
      client_secret: given.secret,
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
    },
  ],
  jwks: given.jwks,
  cookies: { keys: ['only-for-tests'] },
  scopes: ['openid', 'fhirUser', 'roles'],
  claims: { openid: ['sub', 'tid'], fhirUser: ['fhirUser'], roles: ['roles'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => given.audience,
      getResourceServerInfo: () => ({
        scope: 'roles',
        audience: given.audience,
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: () => ({ roles: ['is-reader'], tid: given.tenant }),
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, tid: given.tenant, ...(given.accounts[id] ?? {}) }),
  }),
});
provider.listen(given.port, '127.0.0.1');
