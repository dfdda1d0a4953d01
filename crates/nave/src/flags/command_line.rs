//! Parses the command line like kube-apiserver where clap differs. Errors name the flag.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::{Cli, apiserver};

impl Cli {
    /// Parses the command line. Its first argument is the name of the program.
    ///
    /// # Errors
    /// An argument is unknown, a value cannot be parsed, or help or the version is requested.
    pub(crate) fn read<T: Into<OsString>>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let selected = selected_by(&arguments);
        let arguments = with_command_of_program(arguments);
        let mut command = with_negative_values(Self::command());
        if let Some((program, name)) = selected {
            command = command.mut_subcommand(name, |it| it.override_usage(format!("{program} [OPTIONS]")));
        }
        let matches = command.try_get_matches_from_mut(&arguments);
        let mut matches = matches.map_err(|error| with_tip(error, &command, &arguments))?;
        let values = values(&command, &matches);
        let cli = Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
        Ok(cli.with_values(values))
    }
}

/// Returns all flags of the command with their values, lists in brackets.
fn values(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let (command, matches) = match matches.subcommand() {
        Some((name, matches)) => (command.find_subcommand(name).unwrap_or(command), matches),
        None => (command, matches),
    };
    let flags = command.get_arguments().filter_map(|arg| {
        let name = arg.get_long()?;
        let values = matches.try_get_raw(arg.get_id().as_str()).ok()?;
        let values: Vec<_> = values.into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        let value = values.join(",");
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        Some((name.to_owned(), if is_list { format!("[{value}]") } else { value }))
    });
    flags.collect()
}

/// Adds the command that the name of the program selects, and normalizes the flags of `apiserver`.
fn with_command_of_program(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let Some((_, command)) = selected_by(&arguments) {
        arguments.insert(1, command.into());
    }
    if arguments.get(1).is_some_and(|command| command == APISERVER) {
        let flags = arguments.split_off(2);
        arguments.extend(apiserver::normalize(flags));
    }
    arguments
}

/// Returns the name of the program and the command that it selects.
fn selected_by(arguments: &[OsString]) -> Option<(&'static str, &'static str)> {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    PROGRAMS.into_iter().find(|(name, _)| program == Some(OsStr::new(name)))
}

/// Lets numbers and durations begin with a minus sign, so that the error of a negative value names the flag.
fn with_negative_values(command: Command) -> Command {
    let is_number = |arg: &clap::Arg| {
        let mut names = arg.get_value_names().unwrap_or_default().iter();
        names.any(|name| NUMBERS.contains(&name.as_str()))
    };
    command
        .mut_args(|arg| if is_number(&arg) { arg.allow_hyphen_values(true) } else { arg })
        .mut_subcommands(with_negative_values)
}

/// Adds a tip if a space separates a boolean value from its flag.
fn with_tip(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    if let Some(tip) = separate_truth_value(command, arguments)
        && [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].iter().any(
            |kind| matches!(error.get(*kind), Some(ContextValue::String(argument)) if *argument == tip.value),
        )
    {
        let text = format!("{} takes its value after '=': {}={}", tip.flag, tip.flag, tip.value);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![text.into()]));
    }
    error
}

/// A boolean value separated from its flag by a space.
struct Separate {
    flag: String,
    value: String,
}

fn separate_truth_value(command: &Command, arguments: &[OsString]) -> Option<Separate> {
    let commands = || std::iter::once(command).chain(command.get_subcommands());
    let is_truth = |flag: &OsStr| {
        let name = flag.to_str().and_then(|flag| flag.strip_prefix("--"));
        let mut args = commands().flat_map(Command::get_arguments);
        name.is_some_and(|name| args.any(|arg| arg.get_long() == Some(name) && arg.is_require_equals_set()))
    };
    let mut pairs = arguments.windows(2).filter_map(|pair| match pair {
        [flag, value] if is_truth(flag) => Some((flag.to_str()?, value.to_str()?)),
        _ => None,
    });
    let is_value = |(flag, value): (&str, &str)| {
        let found = !value.starts_with('-') && !commands().any(|command| command.get_name() == value);
        found.then(|| Separate { flag: flag.to_owned(), value: value.to_owned() })
    };
    pairs.find_map(is_value)
}

/// The names of the program that select a command.
const PROGRAMS: [(&str, &str); 2] = [("kube-apiserver", APISERVER), ("etcd", "etcd")];
const APISERVER: &str = "apiserver";
/// The names of values that are numbers or durations.
const NUMBERS: [&str; 7] = ["DURATION", "LEVEL", "N", "PORT", "RANGE", "RATIO", "SECONDS"];

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &[&str]) -> String {
        Cli::read([&["nave"], arguments].concat()).unwrap_err().to_string()
    }

    /// Returns the flags with these value names, each with its command.
    fn flags(names: &[&str]) -> Vec<(String, String)> {
        let root = Cli::command();
        let found = root.get_subcommands().flat_map(|command| {
            let flags = command.get_arguments().filter(|arg| {
                let mut values = arg.get_value_names().unwrap_or_default().iter();
                values.any(|name| names.contains(&name.as_str()))
            });
            flags.map(|arg| (command.get_name().to_owned(), format!("--{}", arg.get_long().unwrap())))
        });
        found.collect()
    }

    #[test]
    fn errors_of_negative_values_name_the_flag_and_the_range() {
        let signed = ["--default-not-ready-toleration-seconds", "--default-unreachable-toleration-seconds"];
        let found = flags(&NUMBERS);
        assert!(found.len() > 30);
        for (command, flag) in found.iter().filter(|(_, flag)| !signed.contains(&flag.as_str())) {
            for value in ["-5", "-1s"] {
                let error = error(&[command, flag, value]);
                assert!(error.contains(&format!("invalid value '{value}' for '{flag}")), "{flag}: {error}");
                assert!(!error.contains("digit") && !error.contains("literal"), "{flag}: {error}");
            }
        }
    }

    #[test]
    fn tells_how_to_give_a_truth_value() {
        let found = flags(&["BOOL"]);
        assert!(found.len() > 5);
        for (command, flag) in &found {
            for value in ["maybe", "false"] {
                let error = error(&[command, flag, value]);
                assert!(error.contains(&format!("'=': {flag}={value}")), "{flag}: {error}");
            }
            let error = error(&[command, &format!("{flag}=maybe")]);
            assert!(error.contains(flag) && error.contains("must be true or false"), "{error}");
        }
        assert!(error(&["--anonymous-auth", "maybe"]).contains("'=': --anonymous-auth=maybe"));
        assert!(!error(&["--anonymous-auth", "--x"]).contains("'='"));
    }
}
