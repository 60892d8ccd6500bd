//! `cargo xtask deb`: the Debian package, made with dpkg's own programs.

mod figures;
mod machine;
mod notices;
mod releases;
mod room;
mod symbols;
mod tree;
mod trial;
mod tutorial;

use std::fs;
use std::path::{Path, PathBuf};

use crate::peers;
use crate::shell::{self, Result, cargo, command, output_of, root, target};
pub(crate) use tree::APART;
use tree::Tree;

/// How to build it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Afterwards install, use, upgrade, remove and purge it in a Debian of its own. Needs root and mmdebstrap.
    #[arg(long)]
    test: bool,
    /// Afterwards boot a Debian with systemd and follow the guide in it, word for word. Needs root, mmdebstrap and
    /// systemd-nspawn.
    #[arg(long)]
    boot: bool,
    /// The cargo profile that the programs are built with.
    #[arg(long, default_value = "shipped")]
    profile: String,
}

/// Builds the package as it is given to others.
pub fn run(options: &Options) -> Result<()> {
    let package = Recipe::new(&options.profile)?.build()?;
    if options.test {
        trial::run(&package)?;
    }
    if options.boot {
        tutorial::run(&package)?;
    }
    Ok(())
}

/// Builds and tries a package of the programs that the tests are run with, so that nothing is compiled for it alone.
pub fn gate() -> Result<()> {
    peers::ensure_packaging()?;
    let package = Recipe::new("dev")?.build()?;
    if let Some(reason) = trial::impossible() {
        println!("the package is not tried: {reason}");
        return Ok(());
    }
    trial::run(&package)?;
    match tutorial::impossible() {
        Some(reason) => println!("the guide is not followed: {reason}"),
        None => tutorial::run(&package)?,
    }
    Ok(())
}

/// Builds the files of a package's programs.
pub fn compile(profile: &str) -> Result<()> {
    let mut arguments = vec!["build", "--profile", profile];
    // For the tests everything is built anyway, and to leave something out would change the features of the rest.
    if profile == "dev" {
        arguments.extend(["--workspace", "--bins"]);
    } else {
        arguments.extend(["--package=suite", "--package=submit", "--package=admin", "--bin=suite"]);
        arguments.extend(tree::APART.iter().flat_map(|program| ["--bin", program]));
    }
    shell::run(&cargo(), &arguments)
}

struct Recipe {
    profile: String,
    /// As the changelog has it: cargo's version and the package's revision.
    version: String,
    /// Seconds since 1970: the newest time that anything in the package bears, so that equal sources make equal packages.
    epoch: String,
    /// Where the package is made.
    folder: PathBuf,
}

impl Recipe {
    fn new(profile: &str) -> Result<Self> {
        let version = changelog("Version")?;
        let cargo = concat!(env!("CARGO_PKG_VERSION"), "-");
        if !version.starts_with(cargo) {
            return Err(format!("packaging/debian/changelog begins with {version}, Cargo.toml has {cargo}…"));
        }
        let folder = target().join("deb");
        let folder = if profile == "shipped" { folder } else { folder.join(profile) };
        Ok(Self { profile: profile.to_owned(), version, epoch: changelog("Timestamp")?, folder })
    }

    fn build(&self) -> Result<PathBuf> {
        compile(&self.profile)?;
        let tree = Tree::lay_out(&self.programs(), &self.folder.join("tree"))?;
        symbols::check(&tree.programs)?;
        self.control(&tree)?;
        let package = self.pack(tree.root())?;
        inspect(&package)?;
        let size = fs::metadata(&package).map_or(0, |metadata| metadata.len() / 1024);
        println!("{}: {size} KiB", package.display());
        Ok(package)
    }

    /// Where cargo puts the programs.
    fn programs(&self) -> PathBuf {
        target().join(if self.profile == "dev" { "debug" } else { &self.profile })
    }

    /// `DEBIAN/`: what dpkg is told.
    fn control(&self, tree: &Tree) -> Result<()> {
        let debian = tree.root().join("DEBIAN");
        tree.copy("packaging/debian/templates", "DEBIAN/templates", 0o644)?;
        for script in ["config", "postinst", "prerm", "postrm"] {
            tree.copy(&format!("packaging/debian/{script}"), &format!("DEBIAN/{script}"), 0o755)?;
        }
        let conffiles = tree.files_under("etc")?;
        tree.write(
            "DEBIAN/conffiles",
            conffiles.iter().map(|file| format!("/{file}\n")).collect::<String>().as_bytes(),
        )?;
        tree.write("DEBIAN/md5sums", checksums(tree)?.as_bytes())?;
        let substitutions = self.folder.join("substvars").display().to_string();
        let _ = fs::remove_file(&substitutions);
        let mut shlibdeps = dpkg("dpkg-shlibdeps", &[&format!("-T{substitutions}")]);
        shlibdeps.args(tree.programs.iter().map(|program| format!("-e{}", program.display())));
        succeed(&mut shlibdeps)?;
        let files = self.folder.join("files").display().to_string();
        let (files, lists) = (format!("-f{files}"), format!("-T{substitutions}"));
        let into = format!("-P{}", tree.root().display());
        succeed(&mut dpkg("dpkg-gencontrol", &["-ppostroad", &lists, &files, &into]))?;
        let control = fs::read_to_string(debian.join("control"));
        let control = control.map_err(|e| format!("dpkg-gencontrol left no control file: {e}"))?;
        let depends = control.lines().find_map(|line| line.strip_prefix("Depends: "));
        releases::check(depends.unwrap_or_default())
    }

    fn pack(&self, tree: &Path) -> Result<PathBuf> {
        let package = self.folder.join(format!("postroad_{}_amd64.deb", self.version));
        // What is only tried out need not be small.
        let compression: &[&str] = if self.profile == "shipped" { &["-Zxz"] } else { &["-Zgzip", "-z1"] };
        pack(tree, &package, compression, &self.epoch)?;
        Ok(package)
    }
}

/// Makes a package of a tree.
fn pack(tree: &Path, package: &Path, compression: &[&str], epoch: &str) -> Result<()> {
    let (tree, into) = (tree.display().to_string(), package.display().to_string());
    let mut build = command("dpkg-deb", &["--root-owner-group"]);
    build.args(compression).args(["--build", &tree, &into]).env("SOURCE_DATE_EPOCH", epoch);
    succeed(&mut build)
}

/// A field of the changelog's newest entry.
fn changelog(field: &str) -> Result<String> {
    let text = output_of("dpkg-parsechangelog", &["-lpackaging/debian/changelog", "-S", field]);
    text.map(|text| text.trim().to_owned()).map_err(|error| format!("{error} (package dpkg-dev)"))
}

fn checksums(tree: &Tree) -> Result<String> {
    let conffiles = tree.files_under("etc")?;
    let files: Vec<String> =
        tree.files_under("")?.into_iter().filter(|file| !file.starts_with("DEBIAN/")).collect();
    let mut sums = command("md5sum", &["--"]);
    sums.args(files.iter().filter(|file| !conffiles.contains(*file))).current_dir(tree.root());
    let output = sums.output().map_err(|e| format!("run md5sum: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err("md5sum failed".into())
    }
}

/// One of dpkg's programs that expect to be run above `debian/`.
fn dpkg(program: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = command(program, arguments);
    command.current_dir(root().join("packaging"));
    command
}

/// Has lintian look at the package, where it is installed. Remarks are shown; errors are errors.
fn inspect(package: &Path) -> Result<()> {
    let name = package.display().to_string();
    let mut lintian =
        command("lintian", &["--allow-root", "--fail-on", "error", "--tag-display-limit", "0", &name]);
    match lintian.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("lintian finds errors in the package".into()),
        Err(_) => {
            println!("the package is not inspected: lintian is not installed");
            Ok(())
        }
    }
}

/// Runs a command that writes nothing of interest unless it fails.
fn succeed(command: &mut std::process::Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().map_err(|e| format!("run {name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
