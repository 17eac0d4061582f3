//! Programs that are not ours and check ours from outside: a Python environment with pinned clients, npm clients, Chromium,
//! hledger. Only tests need them. Their places reach the tests by `COUNTERFOIL_PYTHON`, `COUNTERFOIL_S3_PYTHON`,
//! `COUNTERFOIL_HLEDGER` and the like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tools;
use crate::workspace::Workspace;

/// One environment: its folder under the tools, the file that pins it, what must be there to be used.
struct PythonEnvironment {
    folder: &'static str,
    requirements: &'static str,
    imports: &'static str,
}

/// Clients of what we serve.
const CLIENTS: PythonEnvironment = PythonEnvironment {
    folder: "venv",
    requirements: "xtask/foreign-requirements.txt",
    imports: "beancount, cbor2, duckdb, nats, nacl, openai, zcbor",
};
/// An S3 server; apart, because it pins other versions of what it brings.
const S3_SERVER: PythonEnvironment = PythonEnvironment {
    folder: "venv-s3",
    requirements: "xtask/s3-requirements.txt",
    imports: "moto.server",
};

/// Where the npm clients of the payment tests are pinned.
const X402_CLIENTS: &str = "contracts/tests/x402";

/// Where the driver of the exit page's browser is pinned.
const BROWSER_DRIVER: &str = "contracts/tests/browser";

/// What the tests are told; a tool that is not there has no variable and a reason instead.
pub struct Foreign {
    pub variables: Vec<(&'static str, PathBuf)>,
    pub left_out: Vec<String>,
}

pub fn ensure(workspace: &Workspace) -> Result<Foreign> {
    let mut foreign = Foreign { variables: Vec::new(), left_out: Vec::new() };
    foreign.variables.push(("COUNTERFOIL_PYTHON", python_environment(workspace, &CLIENTS)?));
    foreign.variables.push(("COUNTERFOIL_S3_PYTHON", python_environment(workspace, &S3_SERVER)?));
    foreign.variables.push(("COUNTERFOIL_X402_MODULES", npm_packages(workspace, X402_CLIENTS, "x402")?));
    let driver = npm_packages(workspace, BROWSER_DRIVER, "browser")?;
    foreign.variables.push(("COUNTERFOIL_BROWSER_MODULES", driver));
    match debian_program("COUNTERFOIL_CHROMIUM", "chromium")? {
        Some(path) => foreign.variables.push(("COUNTERFOIL_CHROMIUM", path)),
        None => foreign.left_out.push(
            "chromium is not installed, the exit page is not tried in it; install it: apt-get install chromium".to_owned(),
        ),
    }
    match debian_program("COUNTERFOIL_HLEDGER", "hledger")? {
        Some(path) => foreign.variables.push(("COUNTERFOIL_HLEDGER", path)),
        None => foreign.left_out.push(
            "hledger is not installed, its checks are left out; install it: apt-get install hledger    \
             (or brew install hledger)"
                .to_owned(),
        ),
    }
    Ok(foreign)
}

/// Made once for one content of the requirements; made anew when they change.
fn python_environment(workspace: &Workspace, environment: &PythonEnvironment) -> Result<PathBuf> {
    let PythonEnvironment { folder, requirements: name, imports } = *environment;
    let folder = workspace.tools().join(folder);
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let requirements = workspace.root.join(name);
    let pinned = fs::read_to_string(&requirements).with_context(|| format!("{name} is missing"))?;
    let stamp = folder.join("requirements.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|present| present == pinned) && can_import(&python, imports) {
        println!("foreign: {} (there)", workspace.shown(&python));
        return Ok(python);
    }

    let system_python = tools::python()?;
    let pip = tools::pip()?;
    // Without pip inside: Debian ships `venv` and keeps `ensurepip` in a package of its own.
    run(Command::new(system_python).args(["-m", "venv", "--clear", "--without-pip"]).arg(&folder))?;
    let mut install = Command::new(pip[0]);
    install.args(&pip[1..]).arg("--python").arg(&python);
    install.args(["--disable-pip-version-check", "install", "--quiet", "--only-binary=:all:", "--no-input"]);
    run(install.arg("--requirement").arg(&requirements))
        .context("pip could not fill the environment of the foreign tools (pip 22.3 or newer is needed)")?;
    if !can_import(&python, imports) {
        bail!("the packages of {name} are installed but cannot be imported by {}", python.display());
    }
    fs::write(&stamp, pinned)?;
    println!("foreign: {} ({name} installed)", workspace.shown(&python));
    Ok(python)
}

fn can_import(python: &Path, modules: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {modules}")]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Npm packages of a folder, as their lock file pins them, in a folder of `.tools`.
fn npm_packages(workspace: &Workspace, pinned: &str, name: &str) -> Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let modules = folder.join("node_modules");
    let from = workspace.root.join(pinned);
    let lock = fs::read_to_string(from.join("package-lock.json")).with_context(|| pinned.to_owned())?;
    let stamp = folder.join("lock.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|present| present == lock) && modules.is_dir() {
        println!("foreign: {} (there)", workspace.shown(&modules));
        return Ok(modules);
    }
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), folder.join(file)).with_context(|| format!("{pinned}/{file}"))?;
    }
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
    run(Command::new("npm").args(arguments).current_dir(&folder))
        .with_context(|| format!("npm could not install the packages of {pinned}"))?;
    fs::write(&stamp, lock)?;
    println!("foreign: {} ({pinned} installed)", workspace.shown(&modules));
    Ok(modules)
}

/// Found, or installed where that needs nobody's password.
fn debian_program(variable: &str, name: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(Some(PathBuf::from(path)));
    }
    if tools::on_path(name).is_none() && is_root() && tools::on_path("apt-get").is_some() {
        println!("foreign: apt-get install {name}");
        let install = ["install", "--yes", "--quiet", "--no-install-recommends", name];
        if run(apt_get().args(install)).is_err() {
            // The package lists of a fresh image are empty.
            run(apt_get().args(["update", "--quiet"]))?;
            run(apt_get().args(install))?;
        }
    }
    let found = tools::on_path(name);
    if let Some(path) = &found {
        println!("foreign: {} (there)", path.display());
    }
    Ok(found)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Quiet when it goes well; when it does not, what it said is the error.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} is missing"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} ended with {}: {}", output.status, said.trim());
    }
    Ok(())
}
