//! Three nats-servers on this machine that share one log, as three machines would (`deploy/cluster/`): for tests and
//! for trying out. Must not: be how three machines are run (one disk is one point of failure).

use super::{NatsServer, NatsServerOptions, PortChoice, ServerError, free_port, io};
use crate::auth::Keys;
use std::path::PathBuf;

/// Servers of a cluster; the log lives on each.
pub const CLUSTER_SERVERS: usize = 3;

/// What makes a server one of several.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// One network has one set of keys.
    pub(super) keys_dir: PathBuf,
    /// Its place among them, from 1.
    zone: usize,
    cluster_port: u16,
    routes: Vec<u16>,
}

impl Member {
    /// What is added to `jetstream`, and the block `cluster`.
    pub(super) fn config_text(&self) -> (String, String) {
        let routes: String =
            self.routes.iter().map(|port| format!("    \"nats-route://127.0.0.1:{port}\"\n")).collect();
        let jetstream = "  # No two copies of a stream in one zone.\n  unique_tag: \"az:\"\n".to_owned();
        let cluster = format!(
            "server_tags: [\"az:{zone}\"]\n\
             cluster {{\n  name: counterfoil\n  listen: \"127.0.0.1:{port}\"\n  routes: [\n{routes}  ]\n}}\n",
            zone = self.zone,
            port = self.cluster_port,
        );
        (jetstream, cluster)
    }
}

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct NatsClusterOptions {
    /// The nats-server binary ([`super::find_nats_server`]).
    pub binary: PathBuf,
    /// Keys go to `keys/`, the servers to `node-1/` and so on.
    pub data_dir: PathBuf,
}

/// Three running servers. Dropping it kills them.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts them; they find each other by themselves.
    pub async fn start(options: NatsClusterOptions) -> Result<NatsCluster, ServerError> {
        let data_dir = std::path::absolute(&options.data_dir);
        let data_dir = data_dir.map_err(|e| io(format!("find {}", options.data_dir.display()), e))?;
        let mut ports = Vec::new();
        // Held together, so that they differ.
        let mut held = Vec::new();
        for _ in 0..CLUSTER_SERVERS {
            let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
            let listener = listener.map_err(|e| io("find a free port", e))?;
            ports.push(listener.local_addr().map_err(|e| io("find a free port", e))?.port());
            held.push(listener);
        }
        drop(held);
        let mut servers = Vec::new();
        for zone in 1..=CLUSTER_SERVERS {
            let cluster_port = ports[zone - 1];
            let routes = ports.iter().copied().filter(|port| *port != cluster_port).collect();
            let keys_dir = data_dir.join("keys");
            let member = Member { name: format!("counterfoil-{zone}"), keys_dir, zone, cluster_port, routes };
            let options = NatsServerOptions {
                binary: options.binary.clone(),
                data_dir: data_dir.join(format!("node-{zone}")),
                port: PortChoice::Explicit(free_port()?),
            };
            servers.push(NatsServer::start_as(options, Some(member)).await?);
        }
        Ok(NatsCluster { servers })
    }

    /// All of them, with commas between.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// The keys that they share.
    pub fn keys(&self) -> &Keys {
        self.servers[0].keys()
    }

    /// One of them, from 0.
    pub fn server(&mut self, index: usize) -> &mut NatsServer {
        &mut self.servers[index]
    }

    /// The one of that name.
    pub fn server_named(&mut self, name: &str) -> Option<&mut NatsServer> {
        self.servers.iter_mut().find(|server| server.name() == name)
    }
}
