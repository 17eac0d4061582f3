//! A sequencer as a process of its own: journal, command door, beat; or a standby that becomes one.
//! `sequencer <url> <writer's .creds> <data folder> lead|standby`. Says on standard output, a line each: `standby`,
//! `leads <term>`, `ended <reason>`. The tests kill it.

#[path = "../tests/harness/mod.rs"]
mod harness;

use journal::auth::Credentials;
use journal::standby::{Leader, Standby, StandbyOptions};
use journal::{Journal, JournalOptions};
use std::path::PathBuf;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, credentials, data_dir, role] = &arguments[..] else {
        eprintln!("expected: <url> <writer's .creds> <data folder> lead|standby");
        return ExitCode::from(2);
    };
    match serve(url, credentials, data_dir, role).await {
        Ok(reason) => println!("ended {reason}"),
        Err(error) => println!("ended {error}"),
    }
    ExitCode::FAILURE
}

async fn serve(
    url: &str,
    credentials: &str,
    data_dir: &str,
    role: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let credentials = Credentials::read(&PathBuf::from(credentials))?;
    let mut options = JournalOptions::new(url.to_owned(), credentials.clone(), PathBuf::from(data_dir));
    options.genesis = Some(harness::genesis());
    let shard = options.pipeline.shard;
    let leader = if role == "standby" {
        println!("standby");
        Standby::run(StandbyOptions::new(options)).await?
    } else {
        Leader::start(Journal::open(options).await?, url, &credentials, shard).await?
    };
    println!("leads {}", leader.journal().epoch());
    Ok(leader.ended().await.to_string())
}
