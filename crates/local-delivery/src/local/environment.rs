//! What a command and a template are told about a delivery.

use super::attempt::Context;
use super::settings::Settings;
use crate::rights::User;
use crate::template::Names;

/// The recipient of a delivery in its parts.
#[derive(Debug, Clone)]
pub(super) struct Parts<'a> {
    /// The local part in lower case.
    pub(super) local: String,
    /// Where the user ends in it, and where the extension begins behind the delimiter.
    user: usize,
    extension: usize,
    pub(super) domain: &'a str,
    default_delimiter: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn new(context: &'a Context, settings: &'a Settings) -> Self {
        let local = context.recipient.local_part().to_lowercase();
        let (user, extension) = match settings.delimiters.split(&local) {
            // The extension comes with its delimiter, which is one character.
            Some((user, rest)) => (user.len(), user.len() + rest.chars().next().map_or(0, char::len_utf8)),
            None => (local.len(), local.len()),
        };
        let first = settings.recipient_delimiter.chars().next().map_or(0, char::len_utf8);
        let default_delimiter = &settings.recipient_delimiter[..first];
        Self {
            local,
            user,
            extension,
            domain: context.recipient.domain().unwrap_or_default(),
            default_delimiter,
        }
    }

    /// The bare user name.
    pub(super) fn user(&self) -> &str {
        &self.local[..self.user]
    }

    /// The extension without its delimiter.
    pub(super) fn extension(&self) -> &str {
        &self.local[self.extension..]
    }

    fn delimiter(&self) -> &str {
        match &self.local[self.user..self.extension] {
            "" => self.default_delimiter,
            found => found,
        }
    }

    /// The names that templates may use.
    pub(super) fn names<'b>(&'b self, context: &'b Context, user: Option<&'b User>) -> Names<'b> {
        Names {
            user: self.user(),
            home: user.map_or("", User::home_text),
            shell: user.map_or("", User::shell_text),
            recipient: context.recipient.as_str(),
            extension: self.extension(),
            domain: self.domain,
            local: &self.local,
            recipient_delimiter: self.delimiter(),
        }
    }
}

/// The environment of a command. What the outside could choose is filtered.
pub(super) fn environment(
    context: &Context,
    original: &str,
    client: &mail::Client,
    user: Option<&User>,
    settings: &Settings,
) -> Vec<(String, String)> {
    let parts = Parts::new(context, settings);
    let mut environment = settings.exported.clone();
    if let Some(user) = user {
        for (name, value) in [("HOME", user.home_text()), ("SHELL", user.shell_text())] {
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    let told = [
        ("USER", parts.user()),
        // An alias's command has it, too, though no user of that name need exist.
        ("LOGNAME", user.map_or(parts.user(), |user| &user.name)),
        ("EXTENSION", parts.extension()),
        ("DOMAIN", parts.domain),
        ("LOCAL", parts.local.as_str()),
        ("RECIPIENT", context.recipient.as_str()),
        ("ORIGINAL_RECIPIENT", original),
        ("SENDER", context.sender.as_str()),
        ("CLIENT_ADDRESS", client.address.as_str()),
        ("CLIENT_HELO", client.helo.as_str()),
        ("CLIENT_HOSTNAME", client.name.as_str()),
        ("CLIENT_PROTOCOL", client.protocol.as_str()),
        ("SASL_METHOD", client.sasl_method.as_str()),
        ("SASL_SENDER", client.sasl_sender.as_str()),
        ("SASL_USERNAME", client.sasl_username.as_str()),
    ];
    // Postfix sets a name only where it has a value, but for the sender, which may be the null one.
    let told = told.into_iter().filter(|(name, value)| !value.is_empty() || *name == "SENDER");
    environment.extend(told.map(|(name, value)| (name.to_owned(), filter(value, &settings.command_filter))));
    environment
}

fn filter(value: &str, allowed: &str) -> String {
    value.chars().map(|c| if allowed.contains(c) { c } else { '_' }).collect()
}
