//! Tells a service manager that the worker takes jobs, or drains: systemd's `NOTIFY_SOCKET`. Without one, nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What can be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Jobs are taken.
    Ready,
    /// No new ones are.
    Stopping,
}

impl Moment {
    fn word(self) -> &'static [u8] {
        match self {
            Moment::Ready => b"READY=1\n",
            Moment::Stopping => b"STOPPING=1\n",
        }
    }
}

/// Says it, if anybody wants to know. A manager that does not listen is its own affair.
pub fn tell(moment: Moment) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
        && let Err(error) = send(socket.as_encoded_bytes(), moment)
    {
        tracing::warn!(target: "worker", %error, "the service manager was not told");
    }
}

/// `@name` is a socket without a file.
fn send(socket: &[u8], moment: Moment) -> std::io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(String::from_utf8_lossy(socket).as_ref())?,
    };
    UnixDatagram::unbound()?.send_to_addr(moment.word(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_it_by_path_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes()).unwrap();
        let at = |socket: &UnixDatagram| {
            let mut said = [0; 64];
            let count = socket.recv(&mut said).unwrap();
            said[..count].to_vec()
        };
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_encoded_bytes(), Moment::Ready).unwrap();
        assert_eq!(at(&by_path), b"READY=1\n");
        let by_name = UnixDatagram::bind_addr(&named).unwrap();
        send(&[b"@", path.as_os_str().as_encoded_bytes()].concat(), Moment::Stopping).unwrap();
        assert_eq!(at(&by_name), b"STOPPING=1\n");
        assert!(send(b"/nobody/here", Moment::Ready).is_err());
    }
}
