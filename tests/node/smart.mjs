// An OAuth server for SMART App Launch that the project did not write (npm oidc-provider, MIT). Nobody fills in
// a form: who sits at the keyboard is told to it by `POST /control/user`, and a launch by `POST /control/launch`.
import Provider, { errors, interactionPolicy } from 'oidc-provider';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';

const given = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const launches = new Map();
const wished = new Map(); // state -> the scope as it was asked for: the provider drops offline_access
const grants = new Map(); // grant id -> launch context
let atTheKeyboard = given.user;

const contextOf = (launch) => launches.get(launch) ?? { user: atTheKeyboard, ...given.standalone };
const { Check, base } = interactionPolicy;
const policy = base();
policy.remove('consent');
policy.get('login').checks.add(
  new Check('somebody_else', 'somebody else sits here now', ({ oidc }) =>
    oidc.session.accountId && oidc.session.accountId !== contextOf(oidc.params.launch).user
      ? Check.REQUEST_PROMPT
      : Check.NO_NEED_TO_PROMPT,
  ),
);

/** Return the scope that a user may have: one of all types is cut down to the types of that user. */
function narrowed(user, scope) {
  const types = given.users[user]?.types;
  if (!types) return scope;
  const may = (one) => {
    const [, level, type, rights] = /^(patient|user)\/([^.]+)\.(.+)$/.exec(one) ?? [];
    if (!level) return [one];
    if (type === '*') return types.map((each) => `${level}/${each}.${rights}`);
    return types.includes(type) ? [one] : [];
  };
  return [...new Set(scope.split(' ').flatMap(may))].join(' ');
}

const provider = new Provider(given.issuer, {
  clients: given.clients,
  jwks: given.jwks,
  cookies: { keys: ['only-for-tests'] },
  scopes: ['openid', 'fhirUser', 'offline_access', 'online_access', 'launch', 'launch/patient', 'launch/encounter'],
  claims: { openid: ['sub'], fhirUser: ['fhirUser'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  clientAuthMethods: ['none', 'client_secret_basic', 'private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
  extraParams: {
    aud(ctx, value) {
      if (value?.replace(/\/$/, '') !== given.audience) throw new errors.InvalidRequest('aud is not this FHIR server');
    },
    launch(ctx, value) {
      if (value !== undefined && !launches.has(value)) throw new errors.InvalidRequest('launch is not known');
    },
  },
  ttl: {
    AccessToken: () => given.token_s,
    RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, IdToken: 3600, AuthorizationCode: 60,
  },
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => given.audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: given.scopes.join(' '),
        audience: given.audience,
        accessTokenTTL: given.token_s,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: (ctx, client, source) =>
    client.grantTypeAllowed('refresh_token') && Boolean(grants.get(source.grantId)?.offline),
  rotateRefreshToken: () => true,
  expiresWithSession: () => false,
  loadExistingGrant: async (ctx) => {
    const { params, client, session } = ctx.oidc;
    const grant = new ctx.oidc.provider.Grant({ accountId: session.accountId, clientId: client.clientId });
    grant.addOIDCScope(params.scope);
    grant.addResourceScope(given.audience, params.scope);
    const id = await grant.save();
    const scope = wished.get(params.state) ?? params.scope;
    grants.set(id, { ...contextOf(params.launch), scope, offline: scope.split(' ').includes('offline_access') });
    return grant;
  },
  extraTokenClaims: (ctx, token) => ({ patient: grants.get(token.grantId)?.patient }),
  formats: {
    customizers: {
      jwt: (ctx, token, { payload }) => {
        payload.scope = narrowed(token.accountId, payload.scope ?? '');
      },
    },
  },
  findAccount: (_, id) =>
    given.users[id] && { accountId: id, claims: () => ({ sub: id, fhirUser: given.users[id].fhirUser }) },
});

/** What SMART puts beside the access token (2.2, "Launch context arrives with your access_token"). */
function smart(context, body) {
  const { user, scope, offline, ...about } = context;
  const asked = scope.split(' ');
  const isLaunched = ['launch', 'launch/patient', 'launch/encounter'].some((one) => asked.includes(one));
  const standing = asked.filter((one) => given.scopes.includes(one) || /^(openid|fhirUser|launch.*)$/.test(one));
  if (offline && body.refresh_token) standing.push('offline_access');
  return { ...(isLaunched ? about : {}), ...body, scope: narrowed(user, standing.join(' ')) };
}

async function readJson(req) {
  const pieces = [];
  for await (const piece of req) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString() || '{}');
}

provider.use(async (ctx, next) => {
  if (ctx.path === '/control/launch') {
    const launch = randomBytes(16).toString('hex');
    launches.set(launch, { user: atTheKeyboard, ...(await readJson(ctx.req)) });
    ctx.body = { launch };
    return;
  }
  if (ctx.path === '/control/user') {
    atTheKeyboard = (await readJson(ctx.req)).user;
    ctx.body = {};
    return;
  }
  if (ctx.path.startsWith('/interaction/')) {
    const { params } = await provider.interactionDetails(ctx.req, ctx.res);
    const login = { accountId: contextOf(params.launch).user };
    ctx.respond = false;
    await provider.interactionFinished(ctx.req, ctx.res, { login }, { mergeWithLastSubmission: false });
    return;
  }
  if (ctx.path === '/auth' && ctx.query.state) wished.set(ctx.query.state, ctx.query.scope ?? '');
  await next();
  if (ctx.oidc?.route === 'token' && ctx.status === 200) {
    const { AuthorizationCode: code, RotatedRefreshToken: old } = ctx.oidc.entities;
    ctx.body = smart(grants.get((code ?? old).grantId), ctx.body);
  }
});
provider.listen(given.port, '127.0.0.1');
