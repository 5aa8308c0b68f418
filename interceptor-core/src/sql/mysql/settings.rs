//! Settings that decide how a server reads a text.

/// Words of `sql_mode` with which a text means something else than we read in it.
pub const READ_OTHERWISE: [&str; 9] = [
    "ANSI_QUOTES",
    "ANSI",
    "NO_BACKSLASH_ESCAPES",
    "IGNORE_SPACE",
    "PIPES_AS_CONCAT",
    "ORACLE",
    "MSSQL",
    "DB2",
    "POSTGRESQL",
];

/// Words of `sql_mode` that change neither what a name means nor how a text is cut.
const QUIET: [&str; 20] = [
    "ALLOW_INVALID_DATES",
    "EMPTY_STRING_IS_NULL",
    "ERROR_FOR_DIVISION_BY_ZERO",
    "HIGH_NOT_PRECEDENCE",
    "NO_AUTO_CREATE_USER",
    "NO_AUTO_VALUE_ON_ZERO",
    "NO_DIR_IN_CREATE",
    "NO_ENGINE_SUBSTITUTION",
    "NO_FIELD_OPTIONS",
    "NO_KEY_OPTIONS",
    "NO_TABLE_OPTIONS",
    "NO_UNSIGNED_SUBTRACTION",
    "NO_ZERO_DATE",
    "NO_ZERO_IN_DATE",
    "ONLY_FULL_GROUP_BY",
    "PAD_CHAR_TO_FULL_LENGTH",
    "STRICT_ALL_TABLES",
    "STRICT_TRANS_TABLES",
    "TIME_ROUND_FRACTIONAL",
    "TRADITIONAL",
];

/// The word of a `sql_mode` that makes texts mean something else, or that we do not know; none where all is well.
pub fn reads_otherwise(mode: &str) -> Option<&str> {
    let words = mode.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.into_iter().find(|word| !QUIET.iter().any(|quiet| quiet.eq_ignore_ascii_case(word)))
}

/// How far a connection's character set lets a text be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// Any text.
    Utf8,
    /// Texts of ASCII alone, which it has at the same places.
    Ascii,
    /// None: its letters may hold quotes and backslashes.
    Other,
}

impl Charset {
    /// The one of that name (`character_set_client`).
    pub fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf8mb3" | "utf8mb4" => Self::Utf8,
            "ascii" | "latin1" => Self::Ascii,
            _ => Self::Other,
        }
    }

    /// Whether a text that is sent in it can be read.
    pub fn reads(self, text: &str) -> bool {
        match self {
            Self::Utf8 => true,
            Self::Ascii => text.is_ascii(),
            Self::Other => false,
        }
    }
}
