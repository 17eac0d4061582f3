//! Tests of the keys.

use super::*;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};

#[test]
fn an_nkey_signature_is_plain_ed25519_by_the_operator_id() {
    let pair = KeyPair::new_user();
    let key = OperatorKey::from_seed(&format!(" {}\n", pair.seed().unwrap())).unwrap();
    assert_eq!(key.operator().to_string(), pair.public_key(), "the id's text is the NKEY's");
    let signature = Signature::from_bytes(&key.sign(b"bytes"));
    let public = VerifyingKey::from_bytes(&key.operator().0).unwrap();
    assert!(public.verify(b"bytes", &signature).is_ok());
    assert!(public.verify(b"other", &signature).is_err());
}

#[test]
fn seeds_of_other_kinds_are_refused_and_never_shown() {
    let account = KeyPair::new_account().seed().unwrap();
    let error = OperatorKey::from_seed(&account).unwrap_err().to_string();
    assert!(error.contains("another kind") && !error.contains(&account), "{error}");
    assert!(OperatorKey::from_seed("nonsense").is_err());
    let seed = KeyPair::new_user().seed().unwrap();
    let shown = format!("{:?}", OperatorKey::from_seed(&seed).unwrap());
    assert!(!shown.contains(&seed), "{shown}");
}

#[test]
fn a_node_key_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeId([3; 16]);
    let made = NodeKey::open_or_create(dir.path(), &node).unwrap();
    let again = NodeKey::open_or_create(dir.path(), &node).unwrap();
    assert_eq!(made.public(), again.public());
    let other = NodeKey::open_or_create(dir.path(), &NodeId([4; 16])).unwrap();
    assert_ne!(made.public(), other.public());
    let sealed =
        crypto_box::PublicKey::from(made.public().0).seal(&mut crypto_box::aead::OsRng, b"body").unwrap();
    assert_eq!(made.unseal(&sealed).as_deref(), Some(b"body".as_slice()));
    assert_eq!(other.unseal(&sealed), None, "no node reads another's");
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(made.unseal(&changed), None);
}

#[cfg(unix)]
#[test]
fn a_node_key_that_others_can_read_or_that_is_damaged_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let node = NodeId([3; 16]);
    NodeKey::open_or_create(dir.path(), &node).unwrap();
    let path = NodeKey::path(dir.path(), &node);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = NodeKey::open_or_create(dir.path(), &node).err().expect("too open").to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "12ab").unwrap();
    let error = NodeKey::open_or_create(dir.path(), &node).err().expect("damaged").to_string();
    assert!(error.contains("64 hex digits"), "{error}");
}

#[test]
fn a_jwt_says_whose_it_is() {
    let user = KeyPair::new_user().public_key();
    let claims = BASE64URL_NOPAD.encode(format!(r#"{{"sub":"{user}"}}"#).as_bytes());
    assert_eq!(jwt_subject(&format!("e30.{claims}.sig\n")).unwrap().to_string(), user);
    for wrong in ["", "a.b.c", "e30.e30.e30"] {
        assert!(matches!(jwt_subject(wrong), Err(WorkerError::Jwt(_))), "{wrong:?}");
    }
}
