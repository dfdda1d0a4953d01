//! The table of kube-apiserver's flags, with their types and defaults (recorded from 1.36.2).

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::flags::FlagError;
use crate::flags::values::{parse_bool, parse_duration, whole};

pub(super) const HEADING: &str = "Accepted without effect";
pub(super) const REFUSED_HEADING: &str = "Refused";
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
    let added: Vec<Arg> =
        flags().filter(|flag| find(&command, flag.name).is_none()).map(UpstreamFlag::arg).collect();
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
    let names = WITHOUT_EFFECT.iter().map(|(name, _)| *name);
    names.filter(|name| is_given(matches, name)).map(|name| format!("--{name}")).collect()
}

/// Returns the first flag on the command line that is refused.
pub(super) fn given_refused(matches: &ArgMatches) -> Option<FlagError> {
    let (name, why) = REFUSED.into_iter().find(|(name, _)| is_given(matches, name))?;
    Some(FlagError::new(name, why))
}

fn is_given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(ValueSource::CommandLine)
}

/// Returns the flag of a command with this name or alias.
pub(super) fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
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
            _ => arg.hide(HIDDEN.contains(&self.name)),
        };
        let why = |list: &[(&str, &'static str)]| {
            list.iter().find(|(name, _)| *name == self.name).map_or("", |(_, why)| why)
        };
        let arg = if is_refused(self.name) {
            arg.help_heading(REFUSED_HEADING).help(why(&REFUSED))
        } else {
            arg.help_heading(HEADING).help(why(&WITHOUT_EFFECT))
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

fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// Returns whether any text is a value of this type.
fn is_free_form(kind: &str) -> bool {
    !matches!(kind, "" | "duration" | "int" | "uint" | "float" | "float32" | "ip")
}

const TABLE: &str = include_str!("upstream.tsv");
/// Flags that only `nave apiserver` has.
#[cfg(test)]
pub(super) const OWN: [&str; 2] = [CERT_DIR, VERSION];
/// Deprecated flags that kube-apiserver's help does not show.
const HIDDEN: [&str; 2] = ["apiserver-count", "kubelet-read-only-port"];
/// The flags that are refused, with the reasons. An empty value is accepted.
pub(super) const REFUSED: [(&str, &str); 1] = [(
    "service-account-signing-endpoint",
    "nave signs tokens with --service-account-signing-key-file, not through another process",
)];
/// The flags whose values are checked and otherwise ignored, with the reasons.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 21] = [
    ("allow-metric-labels", BOUNDED),
    ("allow-metric-labels-manifest", BOUNDED),
    ("apiserver-count", "Servers find each other by their leases"),
    ("contention-profiling", RUNTIME),
    ("coordinated-leadership-lease-duration", COORDINATED),
    ("coordinated-leadership-renew-deadline", COORDINATED),
    ("coordinated-leadership-retry-period", COORDINATED),
    ("debug-socket-path", RUNTIME),
    ("emulation-forward-compatible", EMULATION),
    ("enable-garbage-collector", "Deletions set the finalizers of the garbage collector in any case"),
    ("enable-logs-handler", "nave does not serve the files of its host"),
    ("kubelet-read-only-port", "nave does not use the port"),
    ("livez-grace-period", LISTENS),
    ("log-flush-frequency", LOGS),
    ("log-text-info-buffer-size", LOGS),
    ("log-text-split-stream", LOGS),
    ("permit-address-sharing", "SO_REUSEADDR is always set"),
    ("profiling", RUNTIME),
    ("runtime-config-emulation-forward-compatible", EMULATION),
    ("send-retry-after-while-not-ready-once", LISTENS),
    ("vmodule", "The log has one level, --v"),
];
const BOUNDED: &str = "Metrics have a bounded number of series";
const COORDINATED: &str = "The gate CoordinatedLeaderElection is off by default";
const EMULATION: &str = "nave does not emulate older versions";
const LISTENS: &str = "The server listens when its start is complete";
const LOGS: &str = "Each line is written to stderr at once";
const RUNTIME: &str = "These endpoints show Go's runtime";
