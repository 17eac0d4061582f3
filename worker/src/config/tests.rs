//! Tests of the configuration.

use super::*;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;

fn sample(node: NodeId) -> String {
    format!(
        r#"
nats_url = "nats://127.0.0.1:4222"
operator_seed_file = "operator.seed"
operator_jwt_file = "operator.jwt"

[[nodes]]
id = "{node}"

[[nodes.models]]
backend = "builtin"
name = "smollm2-135m"
path = "model.gguf"
"#
    )
}

fn jwt_of(user: &str) -> String {
    format!("e30.{}.sig", BASE64URL_NOPAD.encode(format!(r#"{{"sub":"{user}"}}"#).as_bytes()))
}

#[test]
fn a_short_file_gets_documented_defaults_and_paths_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let config: WorkerConfig = toml::from_str(&sample(NodeId([1; 16]))).unwrap();
    let pair = KeyPair::new_user();
    crate::keys::write_durably(&dir.path().join("operator.seed"), pair.seed().unwrap().as_bytes()).unwrap();
    fs::write(dir.path().join("operator.jwt"), jwt_of(&pair.public_key()) + "\n").unwrap();
    let options = config.options(dir.path()).unwrap();
    assert_eq!(options.data_dir, dir.path().join("worker-data"));
    assert_eq!(options.nodes[0].slots, 4);
    assert!(options.threads >= 1);
    assert!(!format!("{options:?}").contains(&pair.seed().unwrap()), "no secret in Debug");
    let BackendOptions::Builtin { path } = &options.nodes[0].models[0].backend else {
        panic!("the first model is ours")
    };
    assert_eq!(path, &dir.path().join("model.gguf"));

    fs::write(dir.path().join("operator.jwt"), jwt_of(&KeyPair::new_user().public_key())).unwrap();
    let error = config.options(dir.path()).unwrap_err();
    assert!(matches!(error, WorkerError::Jwt(_)), "{error}");
}

#[test]
fn unknown_keys_are_errors_at_every_level() {
    let text = sample(NodeId([1; 16]));
    for (before, key) in
        [("[[nodes]]", "thread = 3\n[[nodes]]"), ("id =", "slot = 3\nid ="), ("name =", "slots = 3\nname =")]
    {
        let wrong = text.replacen(before, key, 1);
        let error = toml::from_str::<WorkerConfig>(&wrong).expect_err(key).to_string();
        assert!(error.contains("unknown field"), "{key}: {error}");
    }
}

#[test]
fn contradictions_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pair = KeyPair::new_user();
    crate::keys::write_durably(&dir.path().join("operator.seed"), pair.seed().unwrap().as_bytes()).unwrap();
    fs::write(dir.path().join("operator.jwt"), jwt_of(&pair.public_key())).unwrap();
    let check = |text: String, expected: &str| {
        let error =
            toml::from_str::<WorkerConfig>(&text).unwrap().options(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let text = sample(NodeId([1; 16]));
    check(text.replacen("id =", "slots = 0\nid =", 1), "slots must be");
    check(text.replacen("[[nodes]]", "threads = 0\n[[nodes]]", 1), "threads must be");
    let nodes = text.split_once("[[nodes]]").unwrap().1;
    check(format!("{text}\n[[nodes]]{nodes}"), "listed twice");
}

#[test]
fn a_server_of_another_kind_is_named_by_url_and_its_key_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let text = sample(NodeId([1; 16])).replace("backend = \"builtin\"", "backend = \"openai\"").replace(
        "path = \"model.gguf\"",
        "url = \"http://127.0.0.1:8000/v1\"\ntokenizer = \"model.gguf\"\napi_key_file = \"server.key\"",
    );
    let pair = KeyPair::new_user();
    crate::keys::write_durably(&dir.path().join("operator.seed"), pair.seed().unwrap().as_bytes()).unwrap();
    crate::keys::write_durably(&dir.path().join("server.key"), b"canary-key\n").unwrap();
    fs::write(dir.path().join("operator.jwt"), jwt_of(&pair.public_key())).unwrap();
    let options = toml::from_str::<WorkerConfig>(&text).unwrap().options(dir.path()).unwrap();
    let BackendOptions::OpenAi(server) = &options.nodes[0].models[0].backend else { panic!("a server") };
    assert_eq!((server.url.as_str(), server.model.as_str()), ("http://127.0.0.1:8000/v1", "smollm2-135m"));
    assert_eq!(server.api_key.as_ref().unwrap().0, "canary-key");
    assert!(!format!("{options:?}").contains("canary-key"), "no secret in Debug");
    let wrong = text.replace("http://", "ftp://");
    let error = toml::from_str::<WorkerConfig>(&wrong).unwrap().options(dir.path()).unwrap_err();
    assert!(error.to_string().contains("http://"), "{error}");
}
