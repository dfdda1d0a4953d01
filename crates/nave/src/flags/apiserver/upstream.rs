//! The table of kube-apiserver's flags, with their types and defaults (recorded from 1.36.2).

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use crate::flags::ServeFlags;
use crate::flags::values::{parse_bool, parse_duration, whole};

const HEADING: &str = "Accepted without effect";
/// The flag of the folder for the self-signed serving certificate.
pub(super) const CERT_DIR: &str = "cert-dir";
/// The flag that prints the version.
pub(super) const VERSION: &str = "version";

/// A flag of kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpstreamFlag {
    pub(super) name: &'static str,
    /// The type in kube-apiserver's help; empty for a boolean.
    pub(super) kind: &'static str,
    /// The default in kube-apiserver's help; empty for false, zero or nothing.
    pub(super) default: &'static str,
}

/// Returns all flags of kube-apiserver.
pub(super) fn flags() -> impl Iterator<Item = UpstreamFlag> {
    TABLE.lines().map(|line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_default();
        UpstreamFlag { name: field(), kind: field(), default: field() }
    })
}

/// Returns whether a flag of kube-apiserver is a text or a list that is empty by default.
pub(super) fn is_text(name: &str) -> bool {
    let found = flags().find(|flag| flag.name == name);
    found.is_some_and(|flag| matches!(flag.default, "" | "[]") && is_free_form(flag.kind))
}

/// Adds the flags of kube-apiserver that the command lacks, and lets the last of repeated flags apply.
pub(super) fn complete(command: Command) -> Command {
    let added: Vec<Arg> = flags().filter(|flag| !has(&command, flag.name)).map(UpstreamFlag::arg).collect();
    command.args(added).mut_args(|arg| {
        if matches!(arg.get_action(), ArgAction::Set) {
            let id = arg.get_id().clone();
            arg.overrides_with(id)
        } else {
            arg
        }
    })
}

/// Returns the flags on the command line that have no effect.
pub(super) fn given_without_effect(matches: &ArgMatches) -> Vec<String> {
    let obeyed = ServeFlags::augment_args(Command::new("serve"));
    let accepted = flags().filter(|flag| !OBEYED.contains(&flag.name) && !has(&obeyed, flag.name));
    accepted
        .filter(|flag| matches.value_source(flag.name) == Some(ValueSource::CommandLine))
        .map(|flag| format!("--{}", flag.name))
        .collect()
}

fn has(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(name))
}

impl UpstreamFlag {
    /// Returns the flag as an argument whose value is checked and otherwise ignored.
    fn arg(self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).action(ArgAction::Set);
        let arg = match self.name {
            CERT_DIR => {
                return arg.value_name("DIR").default_value(self.default).help_heading("Serving").help(
                    "Folder of the serving certificate that the server creates if --tls-cert-file is not set",
                );
            }
            VERSION => {
                return arg
                    .value_name("FORM")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .help_heading("General")
                    .help("Print the version and exit");
            }
            _ => arg.help_heading(HEADING).hide(HIDDEN.contains(&self.name)),
        };
        let arg = if is_free_form(self.kind) { arg.allow_hyphen_values(true) } else { arg };
        let arg = if self.default.is_empty() || self.default.starts_with('[') {
            arg
        } else {
            arg.default_value(self.default)
        };
        let arg = match self.kind {
            "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        };
        arg.value_name(self.value_name()).value_parser(self.parser())
    }

    fn value_name(self) -> &'static str {
        match self.kind {
            "" => "BOOL",
            "duration" => "DURATION",
            "int" | "uint" => "N",
            "float" | "float32" => "NUMBER",
            "string" => "TEXT",
            _ => "LIST",
        }
    }

    /// Returns the check of values. The values themselves are not used.
    fn parser(self) -> ValueParser {
        match self.kind {
            "" => ValueParser::new(|text: &str| parse_bool(text).map(|_| text.to_owned())),
            "duration" => ValueParser::new(|text: &str| parse_duration(text).map(|_| text.to_owned())),
            "int" | "uint" => {
                ValueParser::new(|text: &str| whole(0..=i64::MAX)(text).map(|_| text.to_owned()))
            }
            "float" | "float32" => ValueParser::new(|text: &str| match text.parse::<f64>() {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("must be a number such as 0.5"),
            }),
            _ => ValueParser::string(),
        }
    }
}

/// Returns whether any text is a value of this type.
fn is_free_form(kind: &str) -> bool {
    !matches!(kind, "" | "duration" | "int" | "uint" | "float" | "float32" | "ip")
}

const TABLE: &str = include_str!("upstream.tsv");
/// Flags that only `nave apiserver` has.
const OBEYED: [&str; 2] = [CERT_DIR, VERSION];
/// Deprecated flags that kube-apiserver's help does not show.
const HIDDEN: [&str; 3] =
    ["apiserver-count", "audit-webhook-batch-initial-backoff", "kubelet-read-only-port"];
