//! A network as its roles: two sequencers, two gateways, a projector, an operator with a worker, each a process of its own
//! that can be killed and started again, on one nats-server. Must not: decide whom to kill.

use crate::network::{chat_body, command, root};
use crate::roles::{Broker, Role, http};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The model that it serves.
pub const MODEL: &str = "SmolLM2-135M-Instruct";
/// Longest wait for a service to come back.
pub const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// The processes of one network, and where they lie.
pub struct Cluster {
    dir: PathBuf,
    /// The nats-server.
    pub broker: Broker,
    /// Names `a` and `b`; whichever leads.
    pub sequencers: Vec<Option<Role>>,
    /// Names `gw0` and `gw1`.
    pub gateways: Vec<Option<Role>>,
    urls: Vec<Mutex<String>>,
    /// Signs and publishes.
    pub projector: Option<Role>,
    /// The operator's process.
    pub worker: Option<Child>,
    admin: String,
}

fn model() -> String {
    let fetched = || root().join(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf").display().to_string();
    std::env::var("COUNTERFOIL_MODEL").unwrap_or_else(|_| fetched())
}

impl Cluster {
    /// Everything runs on one nats-server, a worker is routed.
    pub fn start(dir: &Path) -> Cluster {
        Cluster::start_on(dir, Broker::start(dir))
    }

    /// The same on any broker.
    pub fn start_on(dir: &Path, broker: Broker) -> Cluster {
        let mut cluster = Cluster {
            dir: dir.to_owned(),
            broker,
            sequencers: vec![None, None],
            gateways: vec![None, None],
            urls: vec![Mutex::default(), Mutex::default()],
            projector: None,
            worker: None,
            admin: String::new(),
        };
        cluster.start_sequencer(0);
        cluster.sequencers[0].as_mut().expect("started").says("leads");
        cluster.start_sequencer(1);
        cluster.start_gateway(0);
        cluster.start_gateway(1);
        cluster.start_projector();
        let admin = std::fs::read_to_string(dir.join("secrets/admin.key")).expect("the gateway made it");
        cluster.admin = admin.trim().to_owned();
        cluster.register_operator();
        cluster.start_worker();
        cluster.wait_routed();
        cluster
    }

    /// Where a gateway listens now.
    pub fn url(&self, gateway: usize) -> String {
        self.urls[gateway].lock().expect("nobody panics with it").clone()
    }

    /// The administration's key.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The projector's data.
    pub fn published(&self) -> PathBuf {
        self.dir.join("projector")
    }

    fn config(&self, name: &str, table: &str) -> String {
        let path = self.dir.join(format!("{name}.toml"));
        let text = format!("nats_url = \"{}\"\n{table}", self.broker.url());
        std::fs::write(&path, text).expect("writable");
        path.to_str().expect("text").to_owned()
    }

    /// The prepaid preset with short deadlines: a hold that nobody closes expires while a test can wait for it.
    fn preset(&self) -> String {
        let text = std::fs::read_to_string(root().join("presets/prepaid.toml")).expect("it is in the tree");
        let short = text.lines().map(|line| match line.split('=').next().map(str::trim) {
            Some("hold_grace_s") => "hold_grace_s = 5",
            Some("job_deadline_s_max") => "job_deadline_s_max = 25",
            _ => line,
        });
        let path = self.dir.join("preset.toml");
        std::fs::write(&path, short.collect::<Vec<_>>().join("\n")).expect("writable");
        path.display().to_string()
    }

    /// Starts a sequencer; it leads or stands by.
    pub fn start_sequencer(&mut self, number: usize) {
        let name = ["a", "b"][number];
        let table = format!(
            "roles = [\"sequencer\"]\n[sequencer]\ncredentials_file = \"broker/keys/writer.creds\"\ndata_dir = \"{name}\"\nreplicas_min = {}\n\
             genesis = {{ origin = \"chaos.test/prepaid/0\", preset_file = \"{}\" }}\n",
            self.broker.replicas(),
            self.preset()
        );
        let mut role = Role::start(&self.config(name, &table));
        role.says("stands_by");
        self.sequencers[number] = Some(role);
    }

    /// Starts a gateway and waits until it listens.
    pub fn start_gateway(&mut self, number: usize) {
        let table = format!(
            "roles = [\"gateway\"]\n[gateway]\ncredentials_file = \"broker/keys/gateway.creds\"\ndata_dir = \"gw{number}\"\n\
             secrets_dir = \"secrets\"\nlisten = \"127.0.0.1:0\"\nname = \"gw{number}\"\noperator_keys_dir = \"broker/keys\"\n\
             preset_file = \"{}\"\nmodels = [{{ name = \"{MODEL}\", path = \"{}\" }}]\n",
            self.preset(),
            model()
        );
        let mut role = Role::start(&self.config(&format!("gw{number}"), &table));
        let url = role.says("listens")["url"].as_str().expect("a URL").to_owned();
        *self.urls[number].lock().expect("nobody panics with it") = url;
        self.gateways[number] = Some(role);
    }

    /// Starts the projector.
    pub fn start_projector(&mut self) {
        let table = "roles = [\"projector\"]\n[projector]\ncredentials_file = \"broker/keys/projector.creds\"\n\
                     data_dir = \"projector\"\nkeys_dir = \"signer\"\n";
        let mut role = Role::start(&self.config("projector", table));
        role.says("follows");
        self.projector = Some(role);
    }

    fn post(&self, path: &str, key: &str, body: Value) -> Value {
        let (status, answer) = http("POST", &format!("{}{path}", self.url(0)), key, Some(body));
        assert!([200, 201].contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// As an operator does it: a key, an account, a registration, a file.
    fn register_operator(&mut self) {
        let dir = self.dir.join("worker");
        std::fs::create_dir_all(&dir).expect("it can be made");
        let pair = nkeys::KeyPair::new_user();
        let seed = dir.join("operator.seed");
        std::fs::write(&seed, pair.seed().expect("it has one")).expect("writable");
        std::fs::set_permissions(&seed, std::fs::Permissions::from_mode(0o600)).expect("its owner may");
        let opened = self.post("/v1/accounts", "", json!({}));
        let key = opened["api_key"].as_str().expect("a key").to_owned();
        let body = json!({"operator": pair.public_key(), "payout_address": "0x00000000000000000000000000000000000000c1"});
        let registered = self.post("/v1/operators", &key, body);
        std::fs::write(dir.join("operator.jwt"), registered["nats_jwt"].as_str().expect("a JWT"))
            .expect("writable");
        let node = protocol::id::NodeId([5; 16]);
        // The worker makes its sealing key at its first look; `doctor` tells the public half.
        let config = format!(
            "nats_url = \"{}\"\noperator_seed_file = \"operator.seed\"\noperator_jwt_file = \"operator.jwt\"\ndata_dir = \"data\"\nthreads = 1\n\
             [[nodes]]\nid = \"{node}\"\nslots = 4\nmodels = [{{ backend = \"builtin\", name = \"{MODEL}\", path = \"{}\" }}]\n",
            self.broker.url(),
            model()
        );
        std::fs::write(dir.join("worker.toml"), config).expect("writable");
        let sealing = crate::cluster::sealing_key(&dir.join("data"), &node);
        let body = json!({"node": node, "operator": pair.public_key(), "models": [MODEL], "slots": 4, "sealing_key": sealing});
        self.post("/v1/nodes", &key, body);
    }

    /// Starts the worker.
    pub fn start_worker(&mut self) {
        let dir = self.dir.join("worker");
        let log = File::options().create(true).append(true).open(dir.join("worker.log")).expect("writable");
        let mut command = command();
        command.args(["worker", "run", "--config"]).arg(dir.join("worker.toml"));
        let again = log.try_clone().expect("a file can be had twice");
        self.worker =
            Some(command.stdout(log).stderr(Stdio::from(again)).spawn().expect("the worker starts"));
    }

    /// Until both gateways have a node for the model.
    pub fn wait_routed(&self) {
        for gateway in 0..self.urls.len() {
            let url = format!("{}/readyz", self.url(gateway));
            wait_until("a node is routed", || http("GET", &url, "", None).0 == 200);
        }
    }

    /// A chat through a gateway.
    pub fn chat(&self, gateway: usize, key: &str, tokens: u32) -> (u16, Value) {
        let body = chat_body("Name three colours.", tokens, false);
        http("POST", &format!("{}/v1/chat/completions", self.url(gateway)), key, Some(body))
    }

    /// `kill -9`, and gone.
    pub fn kill(child: Option<Role>) {
        drop(child);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// Makes the node's sealing key where the worker looks for it; gives the public half.
fn sealing_key(data: &Path, node: &protocol::id::NodeId) -> String {
    let key = worker::keys::NodeKey::open_or_create(data, node).expect("the key can be made");
    data_encoding::HEXLOWER.encode(&key.public().0)
}

/// Waits for what only polling shows, bounded.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < RECOVERY_MAX, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}
