//! A Dockerfile, read and written anew, so that nothing that the engine carries out of it is fetched.
//!
//! Strategy: the engine gets only what is written here: one instruction in a line, of those that are known, each image by its
//! id, which no registry answers to. So the two need not read the same text alike, where what continues a line, quotes and
//! variables make that hard. What is not understood, and what could mean a fetch once the engine has put variables into
//! it, is refused with what to write instead. Each stage begins with the run's label, so that no other build finds its steps
//! in the engine's cache. Instructions: the Dockerfile reference, as the engine's own builder takes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{create::LABEL, refusal::Refusal};

/// Instructions that are the build's own affair, and go on as they are.
const OTHERS: &[&str] = &[
    "ARG",
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
/// The image that is nothing.
const SCRATCH: &str = "scratch";
/// What of an `ADD` could be, or become, a URL.
const OF_URLS: [char; 5] = [':', '$', '"', '\'', '\\'];
/// What makes a value one that only the engine could tell.
const OF_VALUES: [char; 4] = ['$', '\\', '"', '\''];

/// What an instruction begins with, or copies from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    /// Nothing, or a stage of the same file: as it is written.
    Here(String),
    /// An image.
    Image(String),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Instruction {
    From {
        base: Base,
        stage: Option<String>,
    },
    CopyFrom {
        base: Base,
        /// The other options, each with a blank behind it.
        options: String,
        rest: String,
    },
    /// The instruction's word, and what stands behind it.
    Other(&'static str, String),
}

/// What a build is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dockerfile(Vec<Instruction>);

impl Dockerfile {
    /// Reads a file, whose `ARG` have these values where it asks for images.
    pub(super) fn read(text: &str, arguments: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let mut reader =
            Reader { arguments, defaults: BTreeMap::new(), stages: Vec::new(), instructions: Vec::new() };
        for (number, line) in lines(text)? {
            let read = reader.instruction(&line);
            let read = read.map_err(|why| Refusal::forbidden(format!("Dockerfile, line {number}: {why}")))?;
            reader.instructions.push(read);
        }
        match reader.stages.is_empty() {
            true => Err(Refusal::malformed("Dockerfile: it has no FROM")),
            false => Ok(Self(reader.instructions)),
        }
    }

    /// The images that it begins with or copies from, as it names them.
    pub(super) fn images(&self) -> BTreeSet<&str> {
        let bases = self.0.iter().filter_map(|instruction| match instruction {
            Instruction::From { base, .. } | Instruction::CopyFrom { base, .. } => Some(base),
            Instruction::Other(..) => None,
        });
        bases
            .filter_map(|base| match base {
                Base::Image(name) => Some(name.as_str()),
                Base::Here(_) => None,
            })
            .collect()
    }

    /// The file as the engine gets it, with the ids of its images, all digits. An image without one is a refusal.
    pub(super) fn written(&self, ids: &BTreeMap<String, String>, run: &str) -> Result<String, Refusal> {
        let place = |base: &Base| match base {
            Base::Here(name) => Ok(name.clone()),
            Base::Image(name) => ids.get(name).cloned().ok_or_else(|| Refusal::missing("image", name)),
        };
        let mut text = String::new();
        for instruction in &self.0 {
            // A string takes whatever is written.
            let _ = match instruction {
                Instruction::From { base, stage } => {
                    let stage = stage.as_ref().map(|name| format!(" AS {name}")).unwrap_or_default();
                    writeln!(text, "FROM {}{stage}\nLABEL {LABEL}={run}", place(base)?)
                }
                Instruction::CopyFrom { base, options, rest } => {
                    writeln!(text, "COPY --from={} {options}{rest}", place(base)?)
                }
                Instruction::Other(word, rest) => writeln!(text, "{word} {rest}"),
            };
        }
        Ok(text)
    }
}

/// What is known while a file is read.
#[derive(Debug)]
struct Reader<'a> {
    arguments: &'a BTreeMap<String, String>,
    /// What `ARG` before the first stage say; nothing where that cannot be told.
    defaults: BTreeMap<String, Option<String>>,
    /// The names of the stages so far.
    stages: Vec<Option<String>>,
    instructions: Vec<Instruction>,
}

impl Reader<'_> {
    fn instruction(&mut self, line: &str) -> Result<Instruction, String> {
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
        if rest.is_empty() {
            return Err(format!("{word} says nothing"));
        }
        if self.stages.is_empty() && !matches!(word.as_str(), "FROM" | "ARG") {
            return Err("a file begins with FROM, or with ARG".to_owned());
        }
        match word.as_str() {
            "FROM" => self.from(rest),
            "COPY" => self.copy(rest),
            "ADD" if rest.contains(OF_URLS) || rest.starts_with('[') => Err(
                "ADD of a URL, or of what may become one (`:`, `$`, quotes, a list), would be fetched by the engine: use COPY, or \
                 fetch it in a RUN"
                    .to_owned(),
            ),
            "ADD" => inline(rest).map(|rest| Instruction::Other("ADD", rest)),
            "RUN" if rest.starts_with("--") => Err("options of RUN are BuildKit's: leave them out".to_owned()),
            "RUN" => inline(rest).map(|rest| Instruction::Other("RUN", rest)),
            "ONBUILD" => {
                Err("ONBUILD would be carried out unread in another build: write it there".to_owned())
            }
            other => {
                let known = OTHERS.iter().find(|known| **known == other);
                let known = known.ok_or_else(|| format!("{other} is no instruction that is known"))?;
                if other == "ARG" && self.stages.is_empty() {
                    self.argument(rest);
                }
                Ok(Instruction::Other(known, rest.to_owned()))
            }
        }
    }

    fn from(&mut self, rest: &str) -> Result<Instruction, String> {
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let (image, stage) = match words.as_slice() {
            [image] => (*image, None),
            [image, by, stage] if by.eq_ignore_ascii_case("as") => (*image, Some(stage.to_ascii_lowercase())),
            _ => return Err("FROM takes an image, and AS with a name for the stage".to_owned()),
        };
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
        };
        if stage.as_deref().is_some_and(|name| !is_name(name)) {
            return Err("the name of a stage has letters, digits and `-_.` alone".to_owned());
        }
        let image = self.filled(image)?;
        let base = match image == SCRATCH || self.is_stage(&image) {
            true => Base::Here(image.to_ascii_lowercase()),
            false => Base::Image(named(image)?),
        };
        self.stages.push(stage.clone());
        Ok(Instruction::From { base, stage })
    }

    fn copy(&self, rest: &str) -> Result<Instruction, String> {
        let rest = inline(rest)?;
        let (mut from, mut options, mut rest) = (None, String::new(), rest.as_str());
        while rest.starts_with("--") {
            let (option, behind) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-=._:/,@".contains(c);
            if option == "--" || !option.chars().all(is_plain) {
                return Err(format!("the option {option:?} of COPY has more than plain signs"));
            }
            match option.strip_prefix("--from=") {
                Some(name) if from.is_none() => from = Some(name.to_owned()),
                Some(_) => return Err("COPY has --from twice".to_owned()),
                None if option.starts_with("--from") => return Err("write --from=NAME".to_owned()),
                None => {
                    options.push_str(option);
                    options.push(' ');
                }
            }
            rest = behind.trim_start();
        }
        let rest = rest.to_owned();
        let Some(from) = from else { return Ok(Instruction::Other("COPY", options + &rest)) };
        let earlier = self.stages.len().saturating_sub(1);
        let is_number = from.parse::<usize>().is_ok_and(|number| number < earlier);
        let base = match is_number || self.is_stage(&from) {
            true => Base::Here(from.to_ascii_lowercase()),
            false => Base::Image(named(from)?),
        };
        Ok(Instruction::CopyFrom { base, options, rest })
    }

    fn is_stage(&self, name: &str) -> bool {
        self.stages.iter().flatten().any(|stage| stage.eq_ignore_ascii_case(name))
    }

    fn argument(&mut self, rest: &str) {
        for word in rest.split_ascii_whitespace() {
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let plain =
                value.map(|value| value.trim_matches(['"', '\''])).filter(|value| !value.contains(OF_VALUES));
            let value = self.arguments.get(name).cloned().or_else(|| plain.map(str::to_owned));
            self.defaults.insert(name.to_owned(), value);
        }
    }

    /// An image with its variables put in.
    fn filled(&self, image: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = image;
        while let Some((before, behind)) = rest.split_once('$') {
            let (name, after) = match behind.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or("a variable of FROM has no end")?,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    behind.split_at(behind.find(|c: char| !is_name(c)).unwrap_or(behind.len()))
                }
            };
            let value = self.defaults.get(name).and_then(Option::as_ref);
            let value = value.ok_or_else(|| {
                format!("FROM {image}: {name:?} has no plain value in an ARG before it: write the image out")
            })?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        Ok(filled + rest)
    }
}

/// The name of an image, which has no signs that mean something else.
fn named(name: String) -> Result<String, String> {
    let is_named = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    match !name.is_empty() && name.chars().all(is_named) {
        true => Ok(name),
        false => Err(format!("{name:?} names no image")),
    }
}

/// What stands in one line: a text that goes on below it is BuildKit's, and would take the instructions there for itself.
fn inline(rest: &str) -> Result<String, String> {
    match rest.contains("<<") {
        true => Err("`<<` is BuildKit's: write the text in one line, or COPY it from a file".to_owned()),
        false => Ok(rest.to_owned()),
    }
}

/// The instructions, each in one line, with the numbers of the lines that they begin in.
fn lines(text: &str) -> Result<Vec<(usize, String)>, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let refused = |number: usize, why: &str| Refusal::forbidden(format!("Dockerfile, line {number}: {why}"));
    let mut whole: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut is_head = true;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_odd = |c: char| c != '\t' && (c.is_control() || (c.is_whitespace() && c != ' '));
        if line.contains(is_odd) {
            return Err(refused(number, "it has signs that nobody sees: write blanks and plain text"));
        }
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix('#') {
            if is_head && is_directive(comment) {
                return Err(refused(
                    number,
                    "`# syntax` and `# escape` are not for builds of runs: leave them out",
                ));
            }
            continue;
        }
        is_head = false;
        if trimmed.is_empty() {
            continue;
        }
        let (part, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        if part.trim_end().ends_with('\\') && goes_on {
            return Err(refused(number, "it ends in several `\\`: which of them continues it is not clear"));
        }
        let (since, mut joined) = open.take().unwrap_or((number, String::new()));
        joined.push_str(part);
        match goes_on {
            true => open = Some((since, joined)),
            false => whole.push((since, joined)),
        }
    }
    whole.extend(open);
    let ends_open = |(_, line): &&(usize, String)| line.trim_end().ends_with('\\');
    if let Some((number, _)) = whole.iter().find(ends_open) {
        return Err(refused(*number, "what it comes to ends in `\\`"));
    }
    Ok(whole.into_iter().map(|(number, line)| (number, line.trim().to_owned())).collect())
}

fn is_directive(comment: &str) -> bool {
    let name = comment.split_once('=').map(|(name, _)| name.trim().to_ascii_lowercase());
    matches!(name.as_deref(), Some("syntax" | "escape"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a";

    fn written(text: &str) -> Result<String, Refusal> {
        written_with(text, &[])
    }

    fn written_with(text: &str, arguments: &[(&str, &str)]) -> Result<String, Refusal> {
        let arguments =
            arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let file = Dockerfile::read(text, &arguments)?;
        let ids = file.images().into_iter().map(|name| (name.to_owned(), format!("{ID}-{name}"))).collect();
        file.written(&ids, "r1")
    }

    #[test]
    fn what_the_engine_gets_names_images_by_their_ids() {
        let text = "# a comment\n\
                    ARG VERSION=12\n\
                    from debian:${VERSION} as Build\n\
                    RUN apt-get update && \\\n  # between\n\n  make\n\
                    FROM scratch\n\
                    COPY --chown=1:1 --from=build /a /b\n\
                    copy --from=0 [\"/a b\", \"/c\"]\n\
                    COPY --from=tools:1 /x /y\n\
                    FROM build\n\
                    ADD rootfs.tar /\n\
                    COPY . /src\n";
        let expected = "ARG VERSION=12\n\
                        FROM 0a-debian:12 AS build\nLABEL interceptor.run=r1\n\
                        RUN apt-get update &&   make\n\
                        FROM scratch\nLABEL interceptor.run=r1\n\
                        COPY --from=build --chown=1:1 /a /b\n\
                        COPY --from=0 [\"/a b\", \"/c\"]\n\
                        COPY --from=0a-tools:1 /x /y\n\
                        FROM build\nLABEL interceptor.run=r1\n\
                        ADD rootfs.tar /\n\
                        COPY . /src\n";
        assert_eq!(written(text).as_deref(), Ok(expected));
        let given = written_with("ARG IMAGE\nFROM $IMAGE", &[("IMAGE", "debian:13")]);
        assert_eq!(given.as_deref(), Ok("ARG IMAGE\nFROM 0a-debian:13\nLABEL interceptor.run=r1\n"));
    }

    #[test]
    fn what_the_engine_would_fetch_is_refused() {
        for (line, part) in [
            ("ADD http://192.0.2.1/x /x", "fetched by the engine"),
            ("ADD ht\"\"tp://192.0.2.1/x /x", "fetched by the engine"),
            ("ADD ${URL} /x", "fetched by the engine"),
            ("ADD [\"a\", \"b\"]", "fetched by the engine"),
            ("ADD a\\\n:b /x", "fetched by the engine"),
            ("add git@example.com:x /x", "fetched by the engine"),
            ("ONBUILD ADD http://192.0.2.1/x /x", "ONBUILD"),
            ("RUN --mount=type=bind,from=x true", "BuildKit"),
            ("RUN cat <<EOF\nCOPY --from=x a b\nEOF", "BuildKit"),
            ("COPY <<EOF /x\nEOF", "BuildKit"),
            ("COPY --from=\"x\" a b", "plain signs"),
            ("COPY --from=a --from=b x y", "twice"),
            ("COPY --from a b", "--from=NAME"),
            ("COPY -- --from=x a b", "plain signs"),
            ("COPY --chown=1\u{a0}--from=x a b", "nobody sees"),
            ("COPY --chown=1\u{b}--from=x a b", "nobody sees"),
            ("RUN true \\\\", "several"),
            ("IMPORT x", "no instruction"),
            ("RUN", "says nothing"),
            ("FROM $NONE", "no plain value"),
            ("FROM ${X:-debian}", "no plain value"),
            ("FROM --platform=linux/arm64 debian", "takes an image"),
            ("FROM debian AS 1", "name of a stage"),
            ("FROM \"debian\"", "names no image"),
        ] {
            let refused = written(&format!("FROM base\n{line}\n")).expect_err(line);
            assert!(refused.text.contains(part), "{line}: {}", refused.text);
        }
        for text in [
            "",
            "RUN true",
            "# syntax=docker/dockerfile:1\nFROM base",
            "#  Escape = `\nFROM base",
            "ARG A=$B\nFROM $A",
            "ARG A=\"$B\"\nFROM ${A}",
        ] {
            assert!(written(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_later_stage_is_no_stage_yet() {
        let text = "FROM base\nCOPY --from=later /a /b\nCOPY --from=0 /a /b\nFROM base AS later";
        let file = Dockerfile::read(text, &BTreeMap::new()).expect("it can be read");
        assert_eq!(file.images(), BTreeSet::from(["0", "base", "later"]));
        assert!(file.written(&BTreeMap::new(), "r1").is_err(), "an image without an id");
    }

    #[test]
    fn a_line_is_one_line() {
        let lines = |text: &str| written(&format!("FROM base\n{text}")).map(|text| text.lines().count());
        assert_eq!(lines("RUN a \\"), Ok(3), "what goes on to the end of the file");
        assert_eq!(lines("RUN a \\\n# comment\n\\\nb"), Ok(3));
        assert_eq!(lines("# escape=`\nRUN a"), Ok(3), "a comment below the first instruction");
        assert!(lines("RUN a \\\n\\\\\nb").is_err());
    }
}
