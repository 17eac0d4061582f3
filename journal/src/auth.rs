//! Keys, JWTs and permissions of the broker: one operator, one system account, one ledger account, a user per role, and a
//! scoped signing key that makes an operator's credential. Normative text: `specs/log.md`. Must not: start or configure servers.
//!
//! No running role may create consumers: a push consumer delivers to *any* subject, whatever its creator may publish, and
//! so would let a reader write into the log. Everybody reads by direct get.

use crate::stream::{FEED_STREAM, LEDGER_STREAM, LEDGER_SUBJECT, RECEIPTS_CONSUMER, RECEIPTS_STREAM};
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long an `init` credential lives; it is made in memory and never stored.
pub const INIT_SECONDS_MAX: u64 = 300;
/// How long a `restore` credential lives, in memory too: a large log takes its time.
pub const RESTORE_SECONDS_MAX: u64 = 24 * 3600;
/// Subscriptions per connection of an operator.
pub const OPERATOR_SUBSCRIPTIONS_MAX: i64 = 100;
/// Bytes per message of an operator.
pub const OPERATOR_PAYLOAD_BYTES_MAX: i64 = 1024 * 1024;
/// Denials a connection remembers; older ones are dropped (they stand in the log output).
pub const DENIALS_MAX: usize = 64;
/// How long the writer may take to answer a request on `cmd.*`.
const RESPONSE_SECONDS_MAX: u64 = 60;
/// How long a first connection may take.
const CONNECT_MS_MAX: u64 = 5_000;
/// Longest wait between two attempts to reconnect.
const RECONNECT_MS_MAX: u64 = 1_000;

/// Why keys or a connection cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A key file cannot be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Others may read a secret.
    #[error(
        "key file {path} has mode {mode:o}; expected 600: run `chmod 600 {path}`, and make new keys if others could log in here"
    )]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// Not what should stand there.
    #[error("{path}: expected {expected}: {reason}")]
    Malformed {
        /// Which file, or what text.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key that signs this was put away.
    #[error("{path} was put away; expected it for {purpose}: put the file back for as long as that takes")]
    PutAway {
        /// The missing file.
        path: PathBuf,
        /// What needs it.
        purpose: &'static str,
    },
    /// Not an operator's public key.
    #[error("not an operator's key: {given:?}; expected a public user NKEY (U and 55 letters and digits)")]
    NotAnOperator {
        /// What came.
        given: String,
    },
    /// The server did not let us in, or was not there.
    #[error("cannot connect to {url} as {name}: {reason}")]
    Connect {
        /// Where.
        url: String,
        /// As whom.
        name: String,
        /// The client's words.
        reason: String,
    },
}

/// Who talks to the broker, and what each may do there ([`Role::permissions`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// The shard's writer.
    Writer,
    /// Publishes FEED, folds the log.
    Projector,
    /// Offers jobs, relays results, settles receipts.
    Gateway,
    /// Reads LEDGER and FEED.
    Auditor,
    /// Asks the server about itself; in the system account.
    Monitor,
}

impl Role {
    /// Every role that has a stored credential.
    pub const ALL: [Role; 5] = [Role::Writer, Role::Projector, Role::Gateway, Role::Auditor, Role::Monitor];

    /// Its name: file name, user name, connection name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Writer => "writer",
            Role::Projector => "projector",
            Role::Gateway => "gateway",
            Role::Auditor => "auditor",
            Role::Monitor => "monitor",
        }
    }

    fn permissions(self) -> Permissions {
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        match self {
            Role::Writer => Permissions {
                publish: [
                    text(&["ledger.0"]),
                    read_directly(LEDGER_STREAM),
                    text(&[&format!("$JS.API.STREAM.INFO.{FEED_STREAM}")]),
                    text(&[&format!("$JS.API.STREAM.INFO.{RECEIPTS_STREAM}"), "lease.*"]),
                ]
                .concat(),
                subscribe: text(&["cmd.*", "lease.*"]),
                responds: true,
            },
            Role::Projector => Permissions {
                publish: [text(&["feed.>"]), read_directly(LEDGER_STREAM), read_directly(FEED_STREAM)]
                    .concat(),
                subscribe: Vec::new(),
                responds: false,
            },
            Role::Gateway => Permissions {
                publish: [
                    text(&["job.*.*.offer", "job.*.*.cancel", "job.*.*.standing", "cmd.*"]),
                    // Its replica of the state follows the log.
                    read_directly(LEDGER_STREAM),
                    read_directly(RECEIPTS_STREAM),
                    pull_only(RECEIPTS_STREAM, RECEIPTS_CONSUMER),
                ]
                .concat(),
                subscribe: text(&["result.*.*.>", "hb.>", "lease.*"]),
                responds: false,
            },
            Role::Auditor => Permissions {
                publish: [read_directly(LEDGER_STREAM), read_directly(FEED_STREAM)].concat(),
                subscribe: text(&["feed.>"]),
                responds: false,
            },
            Role::Monitor => Permissions {
                publish: text(&["$SYS.REQ.SERVER.*.JSZ", "$SYS.REQ.SERVER.*.VARZ"]),
                subscribe: Vec::new(),
                responds: false,
            },
        }
    }
}

/// What a user may publish and subscribe to, beside its own inbox.
struct Permissions {
    publish: Vec<String>,
    subscribe: Vec<String>,
    responds: bool,
}

/// Message by message (or in direct-get batches): nothing on the server changes.
fn read_directly(stream: &str) -> Vec<String> {
    vec![
        "$JS.API.INFO".to_owned(),
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
    ]
}

/// A consumer that `init` made: fetch and acknowledge, not create.
fn pull_only(stream: &str, consumer: &str) -> Vec<String> {
    vec![
        format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.>"),
    ]
}

/// A user: its JWT and the seed that proves it. Never printed.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    jwt: String,
    seed: String,
    public_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).field("public_key", &self.public_key).finish()
    }
}

impl Credentials {
    /// Puts a JWT and the seed of its subject together; `name` is what connections are called.
    /// Fails when the seed is no user seed or the JWT is another's.
    pub fn new(name: &str, jwt: &str, seed: &str) -> Result<Credentials, AuthError> {
        let malformed = |reason: String| AuthError::Malformed {
            path: PathBuf::from(format!("credentials of {name}")),
            expected: "a user JWT and its seed",
            reason,
        };
        let pair = KeyPair::from_seed(seed).map_err(|e| malformed(e.to_string()))?;
        let claims = jwt_claims(jwt).ok_or_else(|| malformed("the JWT does not parse".to_owned()))?;
        if pair.key_pair_type() != KeyPairType::User || claims["sub"] != json!(pair.public_key()) {
            return Err(malformed("the JWT's subject is not the seed's user".to_owned()));
        }
        let public_key = pair.public_key();
        Ok(Credentials { name: name.to_owned(), jwt: jwt.to_owned(), seed: seed.to_owned(), public_key })
    }

    /// Reads a `.creds` file as every NATS tool writes them.
    pub fn read(path: &Path) -> Result<Credentials, AuthError> {
        let text = read_secret(path)?.ok_or_else(|| file_error(path, std::io::ErrorKind::NotFound.into()))?;
        let between = |begin: &str, end: &str| {
            let (_, rest) = text.split_once(begin)?;
            let (body, _) = rest.split_once(end)?;
            Some(body.trim().to_owned())
        };
        let jwt = between("-----BEGIN NATS USER JWT-----", "------END NATS USER JWT------");
        let seed = between("-----BEGIN USER NKEY SEED-----", "------END USER NKEY SEED------");
        let (Some(jwt), Some(seed)) = (jwt, seed) else {
            return Err(AuthError::Malformed {
                path: path.to_owned(),
                expected: "a NATS credentials file",
                reason: "no JWT and seed blocks".to_owned(),
            });
        };
        let name = path.file_stem().map_or_else(|| "user".into(), |s| s.to_string_lossy().into_owned());
        Credentials::new(&name, &jwt, &seed)
    }

    /// The `.creds` text of these credentials. A secret.
    pub fn to_creds_text(&self) -> String {
        let Credentials { jwt, seed, .. } = self;
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    /// The user's public NKEY.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The prefix of its inboxes, `_INBOX_<public key>`.
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.public_key)
    }
}

/// Every key and JWT of one network, under one directory.
pub struct Keys {
    dir: PathBuf,
    system_account: String,
    ledger_account: String,
    operator_jwt: String,
    system_jwt: String,
    ledger_jwt: String,
    account_key: Option<KeyPair>,
    operators_key: KeyPair,
    roles: BTreeMap<Role, Credentials>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("dir", &self.dir).field("ledger_account", &self.ledger_account).finish()
    }
}

impl Keys {
    /// Loads the keys under `dir`, making what is missing (files of mode 600 in a directory of mode 700).
    ///
    /// `operator.seed`, `system-account.seed` and `ledger-account.seed` may be taken away once everything was made: then
    /// the stored JWTs are used as they are, and [`Keys::init_credentials`] is refused.
    pub fn load_or_create(dir: &Path) -> Result<Keys, AuthError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| file_error(dir, e))?;
        let operators_key = make_or_load(dir, "operators-signing.seed", KeyPairType::Account)?;
        let fresh = !dir.join("ledger-account.jwt").exists();
        let held = |name: &str, kind: KeyPairType| match fresh {
            true => make_or_load(dir, name, kind).map(Some),
            false => load_pair(dir, name, kind),
        };
        let operator_key = held("operator.seed", KeyPairType::Operator)?;
        let system_key = held("system-account.seed", KeyPairType::Account)?;
        let account_key = held("ledger-account.seed", KeyPairType::Account)?;
        if let (Some(operator), Some(system), Some(account)) = (&operator_key, &system_key, &account_key) {
            write_server_jwts(dir, operator, system, account, &operators_key)?;
        }
        let (operator_jwt, _) = read_jwt(dir, "operator.jwt")?;
        let (system_jwt, system_account) = read_jwt(dir, "system-account.jwt")?;
        let (ledger_jwt, ledger_account) = read_jwt(dir, "ledger-account.jwt")?;
        let mut roles = BTreeMap::new();
        for role in Role::ALL {
            let issuer = if role == Role::Monitor { &system_key } else { &account_key };
            roles.insert(role, role_credentials(dir, role, issuer.as_ref())?);
        }
        let dir = dir.to_owned();
        Ok(Keys {
            dir,
            system_account,
            ledger_account,
            operator_jwt,
            system_jwt,
            ledger_jwt,
            account_key,
            operators_key,
            roles,
        })
    }

    /// The stored credentials of a role.
    pub fn credentials(&self, role: Role) -> &Credentials {
        &self.roles[&role]
    }

    /// A credential that may create the streams, and nothing else; it lives [`INIT_SECONDS_MAX`] seconds, in memory only.
    /// Fails with [`AuthError::PutAway`] once the account's seed was taken away.
    pub fn init_credentials(&self) -> Result<Credentials, AuthError> {
        self.passing_credentials("init", Vec::new(), INIT_SECONDS_MAX)
    }

    /// The same for `counterfoil restore`, which also writes and reads `LEDGER_0`; it lives [`RESTORE_SECONDS_MAX`] seconds.
    pub fn restore_credentials(&self) -> Result<Credentials, AuthError> {
        let more = [vec![LEDGER_SUBJECT.to_owned()], read_directly(LEDGER_STREAM)].concat();
        self.passing_credentials("restore", more, RESTORE_SECONDS_MAX)
    }

    fn passing_credentials(
        &self,
        name: &str,
        more: Vec<String>,
        seconds: u64,
    ) -> Result<Credentials, AuthError> {
        let account = self.account_key.as_ref().ok_or_else(|| AuthError::PutAway {
            path: self.dir.join("ledger-account.seed"),
            purpose: "creating streams",
        })?;
        let mut publish: Vec<String> = [LEDGER_STREAM, FEED_STREAM, RECEIPTS_STREAM]
            .iter()
            .flat_map(|s| [format!("$JS.API.STREAM.CREATE.{s}"), format!("$JS.API.STREAM.INFO.{s}")])
            .collect();
        publish.push(format!("$JS.API.CONSUMER.CREATE.{RECEIPTS_STREAM}.{RECEIPTS_CONSUMER}"));
        publish.push(format!("$JS.API.CONSUMER.INFO.{RECEIPTS_STREAM}.{RECEIPTS_CONSUMER}"));
        publish.extend(more);
        let user = KeyPair::new_user();
        let permissions = Permissions { publish, subscribe: Vec::new(), responds: false };
        let mut claims = user_claims(name, &user.public_key(), &permissions);
        claims["exp"] = json!(unix_seconds() + seconds);
        Credentials::new(name, &sign_jwt(claims, account), &seed_of(&user))
    }

    /// Signs the JWT of an operator for its own public NKEY; the operator keeps its seed. The permissions come from the
    /// template in the account's JWT, so that nothing on the server changes. Fails on anything but a public user NKEY.
    pub fn issue_operator(&self, operator_public_nkey: &str) -> Result<String, AuthError> {
        let given: String = operator_public_nkey.chars().take(80).collect();
        if operator_public_nkey.parse::<protocol::id::OperatorId>().is_err() {
            return Err(AuthError::NotAnOperator { given });
        }
        let claims = json!({"sub": operator_public_nkey, "name": "operator",
            "nats": {"type": "user", "version": 2, "issuer_account": self.ledger_account}});
        Ok(sign_jwt(claims, &self.operators_key))
    }

    /// What the server's configuration needs of the keys: public texts only.
    pub(crate) fn server_config(&self) -> String {
        let Keys { system_account, ledger_account, operator_jwt, system_jwt, ledger_jwt, .. } = self;
        format!(
            "operator: {operator_jwt}\nsystem_account: {system_account}\nresolver_preload: {{\n  \
             {system_account}: {system_jwt}\n  {ledger_account}: {ledger_jwt}\n}}\n"
        )
    }

    /// Public key of the ledger account.
    pub fn ledger_account(&self) -> &str {
        &self.ledger_account
    }
}

fn write_server_jwts(
    dir: &Path,
    operator: &KeyPair,
    system: &KeyPair,
    account: &KeyPair,
    operators_key: &KeyPair,
) -> Result<(), AuthError> {
    let claims = json!({"sub": operator.public_key(), "name": "counterfoil",
        "nats": {"type": "operator", "version": 2, "system_account": system.public_key()}});
    write_secret(&dir.join("operator.jwt"), &sign_jwt(claims, operator))?;
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1});
    let claims = json!({"sub": system.public_key(), "name": "SYS",
        "nats": {"type": "account", "version": 2, "limits": limits}});
    write_secret(&dir.join("system-account.jwt"), &sign_jwt(claims, operator))?;
    let mut with_jetstream = limits;
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        with_jetstream[limit] = json!(-1);
    }
    let scope = json!({"kind": "user_scope", "key": operators_key.public_key(), "role": "operator",
        "template": {
            "pub": {"allow": ["result.{{subject()}}.>", "hb.{{subject()}}.>", "receipt.{{subject()}}.>",
                // About itself only: the server's clock, for `worker doctor`.
                "$SYS.REQ.USER.INFO"]},
            "sub": {"allow": ["job.{{subject()}}.>", "feed.operator.{{subject()}}.>", "_INBOX_{{subject()}}.>"]},
            "subs": OPERATOR_SUBSCRIPTIONS_MAX, "data": -1, "payload": OPERATOR_PAYLOAD_BYTES_MAX}});
    let claims = json!({"sub": account.public_key(), "name": "LEDGER",
        "nats": {"type": "account", "version": 2, "limits": with_jetstream, "signing_keys": [scope]}});
    // Written last: its presence says that the keys are complete.
    write_secret(&dir.join("ledger-account.jwt"), &sign_jwt(claims, operator))
}

/// The role's stored user under a JWT signed now; with the issuer's seed away, the stored JWT.
fn role_credentials(dir: &Path, role: Role, issuer: Option<&KeyPair>) -> Result<Credentials, AuthError> {
    let path = dir.join(format!("{}.creds", role.name()));
    let stored = if path.exists() { Some(Credentials::read(&path)?) } else { None };
    let Some(issuer) = issuer else {
        let purpose = "signing the credentials of a role";
        return stored.ok_or(AuthError::PutAway { path, purpose });
    };
    let seed = stored.map_or_else(|| seed_of(&KeyPair::new_user()), |c| c.seed);
    let user = KeyPair::from_seed(&seed).expect("a user seed that was just made or read parses");
    let jwt = sign_jwt(user_claims(role.name(), &user.public_key(), &role.permissions()), issuer);
    let credentials = Credentials::new(role.name(), &jwt, &seed)?;
    write_secret(&path, &credentials.to_creds_text())?;
    Ok(credentials)
}

fn user_claims(name: &str, public_key: &str, permissions: &Permissions) -> Value {
    let mut subscribe = permissions.subscribe.clone();
    subscribe.push(format!("_INBOX_{public_key}.>"));
    let mut nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        "pub": {"allow": permissions.publish}, "sub": {"allow": subscribe}});
    if permissions.responds {
        nats["resp"] = json!({"max": 1, "ttl": RESPONSE_SECONDS_MAX * 1_000_000_000});
    }
    json!({"sub": public_key, "name": name, "nats": nats})
}

/// NATS JWT version 2: header `ed25519-nkey`, signature over `header.payload`.
fn sign_jwt(mut claims: Value, issuer: &KeyPair) -> String {
    let base64 = data_encoding::BASE64URL_NOPAD;
    claims["iss"] = json!(issuer.public_key());
    claims["iat"] = json!(unix_seconds());
    claims["jti"] = json!(data_encoding::BASE32_NOPAD.encode(&Sha256::digest(claims.to_string())));
    let header = base64.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let message = format!("{header}.{}", base64.encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(message.as_bytes()).expect("a pair made from a seed signs");
    format!("{message}.{}", base64.encode(&signature))
}

fn jwt_claims(jwt: &str) -> Option<Value> {
    let payload = jwt.split('.').nth(1)?;
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?).ok()
}

fn read_jwt(dir: &Path, name: &str) -> Result<(String, String), AuthError> {
    let path = dir.join(name);
    let purpose = "the server's configuration";
    let jwt = read_secret(&path)?.ok_or(AuthError::PutAway { path: path.clone(), purpose })?;
    let jwt = jwt.trim().to_owned();
    let subject = jwt_claims(&jwt).and_then(|c| c["sub"].as_str().map(str::to_owned));
    let reason = "it does not parse, or names no subject".to_owned();
    let subject = subject.ok_or(AuthError::Malformed { path, expected: "a NATS JWT", reason })?;
    Ok((jwt, subject))
}

fn make_or_load(dir: &Path, name: &str, kind: KeyPairType) -> Result<KeyPair, AuthError> {
    if let Some(pair) = load_pair(dir, name, kind.clone())? {
        return Ok(pair);
    }
    let pair = KeyPair::new(kind);
    write_secret(&dir.join(name), &seed_of(&pair))?;
    Ok(pair)
}

fn load_pair(dir: &Path, name: &str, kind: KeyPairType) -> Result<Option<KeyPair>, AuthError> {
    let path = dir.join(name);
    let Some(text) = read_secret(&path)? else { return Ok(None) };
    let malformed =
        |reason: String| AuthError::Malformed { path: path.clone(), expected: "an NKEY seed", reason };
    let pair = KeyPair::from_seed(text.trim()).map_err(|e| malformed(e.to_string()))?;
    if pair.key_pair_type() != kind {
        return Err(malformed("it is the seed of another kind of key".to_owned()));
    }
    Ok(Some(pair))
}

fn seed_of(pair: &KeyPair) -> String {
    pair.seed().expect("a pair that was made here has its seed")
}

/// Reads a secret, refusing one that others may read; `None` when there is no such file.
pub(crate) fn read_secret(path: &Path) -> Result<Option<String>, AuthError> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(file_error(path, e)),
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(AuthError::TooOpen { path: path.to_owned(), mode });
    }
    std::fs::read_to_string(path).map(Some).map_err(|e| file_error(path, e))
}

/// Writes a secret so that it is whole or absent, and never readable by others.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), AuthError> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|e| file_error(path, e))
}

fn file_error(path: &Path, source: std::io::Error) -> AuthError {
    AuthError::File { path: path.to_owned(), source }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// What the server denied on one connection. A denied request looks like a time-out to the client: ask here.
#[derive(Clone, Debug, Default)]
pub struct Denials {
    // Held for one push or one look; never across an await.
    texts: Arc<Mutex<VecDeque<String>>>,
    arrived: Arc<tokio::sync::Notify>,
}

impl Denials {
    /// The server's words for each denial since the last call, oldest first.
    pub fn take(&self) -> Vec<String> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Waits for the next denial and removes it.
    pub async fn next(&self) -> String {
        loop {
            let arrived = self.arrived.notified();
            if let Some(text) = self.texts.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return text;
            }
            arrived.await;
        }
    }

    fn push(&self, text: String) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() == DENIALS_MAX {
            texts.pop_front();
        }
        texts.push_back(text);
        drop(texts);
        self.arrived.notify_one();
    }
}

/// Connects, to `url` or to any of several with commas between them; denials are logged as errors. Fails when the server is away or does not know the user.
pub async fn connect(url: &str, credentials: &Credentials) -> Result<async_nats::Client, AuthError> {
    connect_noting(url, credentials, Denials::default()).await
}

/// [`connect`], and denials are also kept in `denials`.
pub async fn connect_noting(
    url: &str,
    credentials: &Credentials,
    denials: Denials,
) -> Result<async_nats::Client, AuthError> {
    let fail =
        |reason: String| AuthError::Connect { url: url.to_owned(), name: credentials.name.clone(), reason };
    let pair = Arc::new(KeyPair::from_seed(&credentials.seed).map_err(|e| fail(e.to_string()))?);
    let name = credentials.name.clone();
    let options = async_nats::ConnectOptions::with_jwt(credentials.jwt.clone(), move |nonce| {
        let pair = pair.clone();
        async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
    })
    .name(&credentials.name)
    .custom_inbox_prefix(credentials.inbox_prefix())
    .connection_timeout(Duration::from_millis(CONNECT_MS_MAX))
    .reconnect_delay_callback(|attempt| {
        Duration::from_millis((attempt.min(100) as u64 * 20).min(RECONNECT_MS_MAX))
    })
    .event_callback(move |event| {
        let (name, denials) = (name.clone(), denials.clone());
        async move { note_event(&name, &denials, event) }
    });
    let urls: Vec<&str> = url.split(',').map(str::trim).collect();
    options.connect(&urls[..]).await.map_err(|e| fail(e.to_string()))
}

fn note_event(name: &str, denials: &Denials, event: async_nats::Event) {
    use async_nats::Event;
    match event {
        Event::ServerError(error) => {
            tracing::error!(target: "journal", user = name, %error, "the broker refused something");
            denials.push(error.to_string());
        }
        Event::SlowConsumer(subscription) => {
            tracing::warn!(target: "journal", user = name, subscription, "slow consumer: messages were dropped");
        }
        other => tracing::debug!(target: "journal", user = name, event = %other, "broker connection"),
    }
}
