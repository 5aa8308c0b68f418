//! Verdicts in words for the operator: what was refused, by which file and line, and what would allow it.

use std::fmt::Write as _;

use super::{
    Annotated, Asked, Policy,
    expect::{Analyze, Case, Catalogue},
    judge::Answered,
};
use crate::{
    model::{Effect, Object, Program, Target, Verb},
    permit::Judgement,
};

/// The most refused effects that a reason describes.
const MOST_DESCRIBED: usize = 5;

/// What stands in a reason between why something is refused and the rule that would permit it.
pub const WOULD: &str = ". This would: ";

/// How long a suggested permit for an exact text lasts, in seconds.
const SUGGESTED_EXPIRY: i64 = 24 * 3600;

/// What an effect acts on, in words.
fn target(target: &Target) -> String {
    let object = |what: &str, object: &Object| format!("{what} {}", object.shown());
    match target {
        Target::Resource => "the resource".to_owned(),
        Target::Table(table) => object("table", table),
        Target::Function(function) => object("function", function),
        Target::Other { kind, name } => format!("{kind} {name}"),
        Target::Setting(name) => format!("setting {name}"),
        Target::Name(name) => format!("name {name}"),
        Target::Label(name) => format!("label {name}"),
        Target::Program(Program { path, user, capabilities, profile }) => {
            let kept = capabilities.iter().map(|name| format!(" with {name}")).collect::<String>();
            let profile = if profile.is_empty() { String::new() } else { format!(" with profile {profile}") };
            format!("{path} as {user}{kept}{profile}")
        }
        Target::Image(image) => format!("image {image}"),
    }
}

fn describe(asked: &Asked<'_>, effect: &Effect) -> String {
    let mut text = format!("{} on {}", effect.verb.as_str(), target(&effect.target));
    if let Some(resource) = asked.resource {
        let _ = write!(text, " of `{resource}`");
    }
    if asked.statements > 1 {
        let _ = write!(text, " (statement {} of {})", asked.place + 1, asked.statements);
    }
    if let (Verb::Unknown, Some(unknown)) = (effect.verb, &asked.action.facts.unknown) {
        let _ = write!(text, ", because it could not be understood: {unknown}");
    }
    text
}

fn named(rule: &Annotated) -> String {
    format!("`{}` ({}:{})", rule.rule.id, rule.rule.file, rule.rule.line)
}

/// Why an answer is no.
fn why(asked: &Asked<'_>, answer: &Answered<'_>) -> String {
    let what = describe(asked, &answer.effect);
    if !answer.errors.is_empty() {
        return format!("{what}: a rule failed, which means no: {}", answer.errors.join("; "));
    }
    if answer.rules.is_empty() {
        return format!("{what}: no rule permits it{WOULD}{}", suggestion(asked, &answer.effect));
    }
    let rules: Vec<_> = answer.rules.iter().map(|rule| named(rule)).collect();
    format!("{what}: forbidden by {}", rules.join(", "))
}

/// Why a statement is refused or held, for the record and `why`.
pub(super) fn reason<'a>(
    asked: &Asked<'_>,
    refused: impl Iterator<Item = &'a Answered<'a>>,
    approvers: &[String],
) -> String {
    let mut refused = refused.peekable();
    let mut parts: Vec<_> = refused.by_ref().take(MOST_DESCRIBED).map(|answer| why(asked, answer)).collect();
    let more = refused.count();
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    if !approvers.is_empty() {
        parts.push(format!("approval by {} would allow it", approvers.join(" and ")));
    }
    parts.join("; ")
}

/// A Cedar string literal.
pub(super) fn literal(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// The scope's last part and the condition that mean just one target. `inside` is the resource, as Cedar names it.
fn only(target: &Target, inside: Option<&str>) -> (String, Option<String>) {
    let of = |of: &str| {
        inside.map_or(format!("resource is {of}"), |inside| format!("resource is {of} in {inside}"))
    };
    let named = |name: &str| format!("resource.name == {}", literal(name));
    let object = |kind: &str, object: &Object| {
        let (attribute, place) = object.place();
        (of(kind), Some(format!("resource.{attribute} == {} && {}", literal(place), named(&object.name))))
    };
    match target {
        Target::Resource => {
            (inside.map_or("resource".to_owned(), |inside| format!("resource == {inside}")), None)
        }
        Target::Table(table) => object("Table", table),
        Target::Function(function) => object("Function", function),
        Target::Other { kind, name } => {
            (of("Object"), Some(format!("resource.kind == {} && {}", literal(kind), named(name))))
        }
        Target::Setting(name) => (of("Setting"), Some(named(name))),
        Target::Label(name) => (of("Label"), Some(named(name))),
        Target::Name(name) => ("resource is Name".to_owned(), Some(named(name))),
        Target::Program(Program { path, user, capabilities, profile }) => {
            let (path, user, profile) = (literal(path), literal(user), literal(profile));
            let kept: Vec<_> = capabilities.iter().map(|name| literal(name)).collect();
            let kept = format!("[{}].containsAll(resource.capabilities)", kept.join(", "));
            let scope = format!("resource == Program::{path}");
            (scope, Some(format!("resource.user == {user} && {kept} && resource.profile == {profile}")))
        }
        Target::Image(image) => (format!("resource == Image::{}", literal(&image.to_string())), None),
    }
}

/// The narrowest rule that would permit an effect. One that forbids still wins over it.
pub(super) fn suggestion(asked: &Asked<'_>, effect: &Effect) -> String {
    let (agent, verb) = (&asked.run.agent.name, effect.verb.as_str());
    let inside = asked.resource.map(|name| format!("Resource::{}", literal(name.as_str())));
    let (scope, mut condition) = only(&effect.target, inside.as_deref());
    if effect.verb == Verb::Unknown {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(asked.action.text.as_bytes());
        let until = asked.now.saturating_add(SUGGESTED_EXPIRY);
        condition = Some(format!("context.sha256 == \"{digest:x}\" && context.now < {until}"));
    }
    let mut id = format!("{agent}-{verb}");
    id.truncate(64);
    let mut rule = format!(
        "@id(\"{id}\") permit (principal == Agent::\"{agent}\", action == Action::\"{verb}\", {scope})"
    );
    if let Some(condition) = condition {
        let _ = write!(rule, " when {{ {condition} }}");
    }
    rule.push(';');
    rule
}

/// The text of `policy explain`: for each effect of each statement the verdict, the rules by file and line, and what
/// would allow it.
pub fn explain(
    policy: &Policy,
    case: &Case,
    catalogue: &Catalogue,
    analyze: Analyze<'_>,
) -> Result<String, String> {
    let trial = case.prepare(policy, catalogue, analyze)?;
    let mut text = String::new();
    for asked in trial.questions() {
        let judgement = policy.judge(&asked);
        let verdict = match &judgement {
            Judgement::Allowed { .. } => "allowed".to_owned(),
            Judgement::Denied { .. } => "denied".to_owned(),
            Judgement::Held { approvers, .. } => format!("held for {}", approvers.join(" and ")),
        };
        let _ = writeln!(text, "statement {} of {}: {verdict}", asked.place + 1, asked.statements);
        match policy.answers(&asked, asked.approvals) {
            Ok(answers) => answers.iter().for_each(|answer| line(&mut text, &asked, answer)),
            Err(error) => {
                let _ = writeln!(text, "  no: {error}");
            }
        }
    }
    Ok(text)
}

fn line(text: &mut String, asked: &Asked<'_>, answer: &Answered<'_>) {
    if !answer.allowed {
        let _ = writeln!(text, "  no   {}", why(asked, answer));
    } else {
        let rules: Vec<_> = answer.rules.iter().map(|rule| named(rule)).collect();
        let _ =
            writeln!(text, "  yes  {}: permitted by {}", describe(asked, &answer.effect), rules.join(", "));
    }
    for rule in answer.rules.iter().filter(|_| !answer.allowed) {
        if let Some(say) = &rule.rule.say {
            let _ = writeln!(text, "       it says: {say}");
        }
    }
}
