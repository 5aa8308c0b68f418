//! Statements that make, change and remove objects, and those that change who may do what.
//!
//! Such a statement is judged by its own verb on the objects it names; queries and calls inside it (defaults,
//! CREATE TABLE AS, a view's query) are walked like any other. What hides effects for later in a way that no later
//! statement shows (rules, triggers) and what reaches objects that the text does not name (CASCADE) is unknown.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    Name, Reference,
    analyze::Draft,
    names, utility,
    walk::{child_of, has_token, new_relation},
};
use crate::model::{StatementKind, Verb};

/// What the statement does, if it is one of these.
pub(super) fn draft(node: &SyntaxNode) -> Option<Draft> {
    let name = format!("{:?}", node.kind());
    let rule = RULES.iter().find(|rule| rule.matches(node.kind()))?;
    let mut draft = Draft::new(rule.kind);
    for subject in subjects_of(node, rule, &name) {
        draft.add(rule.verb, subject);
    }
    for extra in rule.also {
        draft.walk.add(*extra, Reference::Resource);
    }
    specials(&mut draft, node);
    below(&mut draft, node, rule.verb);
    if !draft.walk.effects.iter().any(|(verb, _)| *verb == rule.verb) {
        draft.walk.add(rule.verb, Reference::Resource);
    }
    Some(draft)
}

/// How a family of statements is judged.
struct Rule {
    kinds: &'static [SyntaxKind],
    kind: StatementKind,
    verb: Verb,
    also: &'static [Verb],
    /// The SQL word for objects that are no relations.
    word: &'static str,
}

impl Rule {
    fn matches(&self, kind: SyntaxKind) -> bool {
        self.kinds.contains(&kind)
    }
}

const fn rule(
    kind: StatementKind,
    verb: Verb,
    word: &'static str,
    kinds: &'static [SyntaxKind],
    also: &'static [Verb],
) -> Rule {
    Rule { kinds, kind, verb, also, word }
}

use SyntaxKind as K;

const REACH: &[Verb] = &[Verb::ServerReach];
const ACCESS: &[Verb] = &[Verb::AccessChange];

/// Every statement of this module. What is in no row is unknown.
const RULES: &[Rule] = &[
    // Relations: the subject is found among the names that stand directly in the statement.
    rule(
        StatementKind::Create,
        Verb::SchemaCreate,
        "",
        &[
            K::CREATE_TABLE,
            K::CREATE_TABLE_AS,
            K::CREATE_VIEW,
            K::CREATE_MATERIALIZED_VIEW,
            K::CREATE_SEQUENCE,
        ],
        &[],
    ),
    rule(StatementKind::Create, Verb::SchemaCreate, "", &[K::CREATE_FOREIGN_TABLE], REACH),
    rule(
        StatementKind::Alter,
        Verb::SchemaAlter,
        "",
        &[K::ALTER_TABLE, K::ALTER_VIEW, K::ALTER_MATERIALIZED_VIEW, K::ALTER_SEQUENCE, K::ALTER_INDEX],
        &[],
    ),
    rule(StatementKind::Alter, Verb::SchemaAlter, "", &[K::ALTER_FOREIGN_TABLE], REACH),
    rule(
        StatementKind::Drop,
        Verb::SchemaDrop,
        "",
        &[
            K::DROP_TABLE,
            K::DROP_VIEW,
            K::DROP_MATERIALIZED_VIEW,
            K::DROP_SEQUENCE,
            K::DROP_INDEX,
            K::DROP_FOREIGN_TABLE,
        ],
        &[],
    ),
    rule(StatementKind::Maintenance, Verb::DataUpdate, "", &[K::REFRESH], &[]),
    // Other objects.
    rule(StatementKind::Create, Verb::SchemaCreate, "index", &[K::CREATE_INDEX], &[]),
    rule(StatementKind::Create, Verb::SchemaCreate, "schema", &[K::CREATE_SCHEMA], &[]),
    rule(StatementKind::Alter, Verb::SchemaAlter, "schema", &[K::ALTER_SCHEMA], &[]),
    rule(StatementKind::Drop, Verb::SchemaDrop, "schema", &[K::DROP_SCHEMA], &[]),
    rule(
        StatementKind::Create,
        Verb::SchemaCreate,
        "function",
        &[K::CREATE_FUNCTION, K::CREATE_PROCEDURE, K::CREATE_AGGREGATE],
        &[],
    ),
    rule(
        StatementKind::Alter,
        Verb::SchemaAlter,
        "function",
        &[K::ALTER_FUNCTION, K::ALTER_PROCEDURE, K::ALTER_ROUTINE, K::ALTER_AGGREGATE],
        &[],
    ),
    rule(
        StatementKind::Drop,
        Verb::SchemaDrop,
        "function",
        &[K::DROP_FUNCTION, K::DROP_PROCEDURE, K::DROP_ROUTINE, K::DROP_AGGREGATE],
        &[],
    ),
    rule(StatementKind::Create, Verb::SchemaCreate, "type", &[K::CREATE_TYPE, K::CREATE_DOMAIN], &[]),
    rule(StatementKind::Alter, Verb::SchemaAlter, "type", &[K::ALTER_TYPE, K::ALTER_DOMAIN], &[]),
    rule(StatementKind::Drop, Verb::SchemaDrop, "type", &[K::DROP_TYPE, K::DROP_DOMAIN], &[]),
    rule(StatementKind::Create, Verb::SchemaCreate, "database", &[K::CREATE_DATABASE], &[]),
    rule(StatementKind::Alter, Verb::SchemaAlter, "database", &[K::ALTER_DATABASE], &[]),
    rule(StatementKind::Drop, Verb::SchemaDrop, "database", &[K::DROP_DATABASE], &[]),
    rule(
        StatementKind::Create,
        Verb::SchemaCreate,
        "trigger",
        &[K::CREATE_TRIGGER, K::CREATE_EVENT_TRIGGER, K::CREATE_RULE],
        &[],
    ),
    rule(
        StatementKind::Alter,
        Verb::SchemaAlter,
        "trigger",
        &[K::ALTER_TRIGGER, K::ALTER_EVENT_TRIGGER, K::ALTER_RULE],
        &[],
    ),
    rule(
        StatementKind::Drop,
        Verb::SchemaDrop,
        "trigger",
        &[K::DROP_TRIGGER, K::DROP_EVENT_TRIGGER, K::DROP_RULE],
        &[],
    ),
    rule(
        StatementKind::Create,
        Verb::SchemaCreate,
        "object",
        &[
            K::CREATE_CAST,
            K::CREATE_COLLATION,
            K::CREATE_CONVERSION,
            K::CREATE_OPERATOR,
            K::CREATE_OPERATOR_CLASS,
            K::CREATE_OPERATOR_FAMILY,
            K::CREATE_STATISTICS,
            K::CREATE_TEXT_SEARCH_CONFIGURATION,
            K::CREATE_TEXT_SEARCH_DICTIONARY,
            K::CREATE_TEXT_SEARCH_PARSER,
            K::CREATE_TEXT_SEARCH_TEMPLATE,
            K::CREATE_TRANSFORM,
        ],
        &[],
    ),
    rule(
        StatementKind::Alter,
        Verb::SchemaAlter,
        "object",
        &[
            K::ALTER_COLLATION,
            K::ALTER_CONVERSION,
            K::ALTER_OPERATOR,
            K::ALTER_OPERATOR_CLASS,
            K::ALTER_OPERATOR_FAMILY,
            K::ALTER_STATISTICS,
            K::ALTER_TEXT_SEARCH_CONFIGURATION,
            K::ALTER_TEXT_SEARCH_DICTIONARY,
            K::ALTER_TEXT_SEARCH_PARSER,
            K::ALTER_TEXT_SEARCH_TEMPLATE,
        ],
        &[],
    ),
    rule(
        StatementKind::Drop,
        Verb::SchemaDrop,
        "object",
        &[
            K::DROP_CAST,
            K::DROP_COLLATION,
            K::DROP_CONVERSION,
            K::DROP_OPERATOR,
            K::DROP_OPERATOR_CLASS,
            K::DROP_OPERATOR_FAMILY,
            K::DROP_STATISTICS,
            K::DROP_TEXT_SEARCH_CONFIG,
            K::DROP_TEXT_SEARCH_DICT,
            K::DROP_TEXT_SEARCH_PARSER,
            K::DROP_TEXT_SEARCH_TEMPLATE,
            K::DROP_TRANSFORM,
        ],
        &[],
    ),
    rule(StatementKind::Comment, Verb::SchemaAlter, "object", &[K::COMMENT_ON], &[]),
    // Code of the server's own, files, other servers.
    rule(
        StatementKind::Create,
        Verb::SchemaCreate,
        "extension",
        &[
            K::CREATE_EXTENSION,
            K::CREATE_LANGUAGE,
            K::CREATE_ACCESS_METHOD,
            K::CREATE_FOREIGN_DATA_WRAPPER,
            K::CREATE_SERVER,
            K::CREATE_SUBSCRIPTION,
            K::CREATE_PUBLICATION,
            K::CREATE_TABLESPACE,
            K::IMPORT_FOREIGN_SCHEMA,
        ],
        REACH,
    ),
    rule(
        StatementKind::Alter,
        Verb::SchemaAlter,
        "extension",
        &[
            K::ALTER_EXTENSION,
            K::ALTER_LANGUAGE,
            K::ALTER_FOREIGN_DATA_WRAPPER,
            K::ALTER_SERVER,
            K::ALTER_SUBSCRIPTION,
            K::ALTER_PUBLICATION,
            K::ALTER_TABLESPACE,
        ],
        REACH,
    ),
    rule(
        StatementKind::Drop,
        Verb::SchemaDrop,
        "extension",
        &[
            K::DROP_EXTENSION,
            K::DROP_LANGUAGE,
            K::DROP_ACCESS_METHOD,
            K::DROP_FOREIGN_DATA_WRAPPER,
            K::DROP_SERVER,
            K::DROP_SUBSCRIPTION,
            K::DROP_PUBLICATION,
            K::DROP_TABLESPACE,
        ],
        REACH,
    ),
    rule(StatementKind::Alter, Verb::ServerReach, "setting", &[K::ALTER_SYSTEM], &[]),
    // Who may do what.
    rule(StatementKind::Grant, Verb::AccessChange, "privilege", &[K::GRANT], &[]),
    rule(StatementKind::Revoke, Verb::AccessChange, "privilege", &[K::REVOKE], &[]),
    rule(
        StatementKind::Create,
        Verb::AccessChange,
        "role",
        &[K::CREATE_ROLE, K::CREATE_USER, K::CREATE_GROUP],
        &[],
    ),
    rule(
        StatementKind::Alter,
        Verb::AccessChange,
        "role",
        &[K::ALTER_ROLE, K::ALTER_USER, K::ALTER_GROUP],
        &[],
    ),
    rule(StatementKind::Drop, Verb::AccessChange, "role", &[K::DROP_ROLE, K::DROP_USER, K::DROP_GROUP], &[]),
    rule(StatementKind::Alter, Verb::AccessChange, "role", &[K::REASSIGN, K::ALTER_DEFAULT_PRIVILEGES], &[]),
    rule(StatementKind::Drop, Verb::AccessChange, "role", &[K::DROP_OWNED], &[]),
    rule(StatementKind::Create, Verb::AccessChange, "policy", &[K::CREATE_POLICY], &[]),
    rule(StatementKind::Alter, Verb::AccessChange, "policy", &[K::ALTER_POLICY], &[]),
    rule(StatementKind::Drop, Verb::AccessChange, "policy", &[K::DROP_POLICY], &[]),
    rule(StatementKind::Create, Verb::AccessChange, "user mapping", &[K::CREATE_USER_MAPPING], REACH),
    rule(StatementKind::Alter, Verb::AccessChange, "user mapping", &[K::ALTER_USER_MAPPING], REACH),
    rule(StatementKind::Drop, Verb::AccessChange, "user mapping", &[K::DROP_USER_MAPPING], REACH),
    rule(StatementKind::Alter, Verb::AccessChange, "label", &[K::SECURITY_LABEL], &[]),
    rule(StatementKind::Alter, Verb::ServerReach, "large object", &[K::ALTER_LARGE_OBJECT], ACCESS),
];

/// What the statement is about: the relation that it makes or names, or objects of another kind. Nothing where the
/// statement names it further down, if at all.
fn subjects_of(node: &SyntaxNode, rule: &Rule, statement: &str) -> Vec<Result<Reference, String>> {
    let named_below = matches!(
        node.kind(),
        K::GRANT
            | K::REVOKE
            | K::COMMENT_ON
            | K::SECURITY_LABEL
            | K::ALTER_DEFAULT_PRIVILEGES
            | K::ALTER_SYSTEM
            | K::REASSIGN
            | K::DROP_OWNED
    );
    if named_below {
        Vec::new()
    } else if rule.word.is_empty() {
        vec![relation_subject(node, statement)]
    } else {
        other_subjects(node, rule, statement)
    }
}

fn relation_subject(node: &SyntaxNode, statement: &str) -> Result<Reference, String> {
    let subject = node.children().find(|child| is_relation(child.kind()) || is_new_relation(child.kind()));
    match subject {
        Some(subject) if is_new_relation(subject.kind()) => {
            let temporary = child_of(node, K::TEMP).is_some();
            names::relation(&subject).map(|name| new_relation(name, temporary))
        }
        Some(subject) => names::relation(&subject).map(Reference::Relation),
        // ALTER TABLE ALL IN TABLESPACE
        None => Err(format!("{statement} names no relation")),
    }
}

/// DROP takes several names, the others one.
fn other_subjects(node: &SyntaxNode, rule: &Rule, statement: &str) -> Vec<Result<Reference, String>> {
    // What kind of object it is, such as `operator class`, from the statement's name.
    let word = match rule.word {
        "object" | "extension" => {
            let words = statement.split_once('_').map_or(statement, |(_, rest)| rest);
            words.to_lowercase().replace('_', " ")
        }
        word => word.to_owned(),
    };
    let flat = node.children().flat_map(|child| match child.kind() {
        K::FUNCTION_SIG_LIST | K::PROCEDURE_SIG_LIST | K::ROUTINE_SIG_LIST | K::OP_SIG_LIST => {
            child.children().collect()
        }
        K::IF_EXISTS | K::IF_NOT_EXISTS | K::OR_REPLACE | K::CASCADE | K::RESTRICT => Vec::new(),
        K::ON_RELATION | K::ON_TABLE | K::SERVER_CLAUSE | K::USING_METHOD => Vec::new(),
        _ => vec![child],
    });
    let mut names = flat.filter_map(|child| object_name(&child));
    let drops = rule.kind == StatementKind::Drop;
    let first = names.next().unwrap_or_default();
    let rest: Vec<String> = if drops { names.collect() } else { Vec::new() };
    std::iter::once(first).chain(rest).map(|name| Ok(Reference::Other { kind: word.clone(), name })).collect()
}

/// The name that a part of a statement begins with, if it does.
fn object_name(part: &SyntaxNode) -> Option<String> {
    let path = part.descendants().find(|below| matches!(below.kind(), K::PATH | K::PATH_REF));
    names::dotted(&path.unwrap_or_else(|| part.clone())).ok().filter(|name| !name.is_empty())
}

fn is_relation(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        K::TABLE_NAME_REF
            | K::TABLE_RELATION_NAME
            | K::RELATION_NAME_REF
            | K::RELATION_NAME
            | K::VIEW_REF
            | K::SEQUENCE_REF
            | K::INDEX_REF
    )
}

fn is_new_relation(kind: SyntaxKind) -> bool {
    matches!(kind, K::TABLE_NAME | K::VIEW | K::SEQUENCE)
}

/// What single statements need besides their row.
fn specials(draft: &mut Draft, node: &SyntaxNode) {
    if child_of(node, K::OR_REPLACE).is_some()
        && let Some(view) = child_of(node, K::VIEW)
    {
        draft.walk.relation(&[Verb::SchemaAlter], &view);
    }
    if node.kind() == K::CREATE_VIEW
        && has_token(node, K::RECURSIVE_KW)
        && let Some(Ok(Name { schema: None, name })) =
            child_of(node, K::VIEW).map(|view| names::relation(&view))
    {
        draft.walk.hide(name);
    }
    let drops = matches!(draft.kind, StatementKind::Drop);
    if drops && child_of(node, K::CASCADE).is_some() {
        draft.walk.not_understood("what DROP ... CASCADE removes besides is not in the text");
    }
    if matches!(node.kind(), K::CREATE_TRIGGER | K::CREATE_EVENT_TRIGGER | K::CREATE_RULE) {
        draft.walk.not_understood("what a rule or trigger will do is not known when it is made");
    }
    if node.kind() == K::IMPORT_FOREIGN_SCHEMA {
        imported(draft, node);
    }
    if node.kind() == K::DROP_OWNED {
        draft.walk.not_understood("what a role owns is not in the text");
    }
}

/// The tables that IMPORT FOREIGN SCHEMA makes, which stand in the text only where it limits itself to some.
fn imported(draft: &mut Draft, node: &SyntaxNode) {
    let schema = child_of(node, K::INTO_SCHEMA).and_then(|into| child_of(&into, K::SCHEMA_REF));
    let schema = schema.and_then(|schema| object_name(&schema));
    let (Some(schema), Some(listed)) = (schema, child_of(node, K::LIMIT_TO_TABLES)) else {
        return draft.walk.not_understood("which tables IMPORT FOREIGN SCHEMA makes is not in the text");
    };
    for table in listed.children() {
        let made = |name| Reference::NewRelation(Name { schema: Some(schema.clone()), name });
        draft.add(Verb::SchemaCreate, names::dotted(&table).map(made));
    }
}

/// Everything below the statement: relations that it touches on the way, queries, calls.
fn below(draft: &mut Draft, node: &SyntaxNode, verb: Verb) {
    let mut stack: Vec<SyntaxNode> = node.children().collect();
    while let Some(part) = stack.pop() {
        let kind = part.kind();
        if is_relation(kind) {
            touch(draft, &part, verb);
        } else if is_query(kind) {
            draft.walk.walk(&part);
        } else if kind == K::SET_SCHEMA || kind == K::OBJECT_COLUMN {
            moved_or_column(draft, &part, verb);
        } else if kind == K::EXECUTE {
            utility::execute(draft, &part);
        } else if is_unreadable(kind) || super::analyze::is_statement(kind) {
            draft.walk.not_understood(format!("{kind:?} inside the statement is not read here"));
        } else {
            access(draft, node, kind);
            stack.extend(part.children());
        }
    }
}

/// The schema that an object is moved to, or the relation of the column that is commented on.
fn moved_or_column(draft: &mut Draft, part: &SyntaxNode, verb: Verb) {
    if part.kind() == K::SET_SCHEMA {
        let schema = child_of(part, K::SCHEMA_REF).and_then(|schema| object_name(&schema));
        draft
            .walk
            .add(verb, Reference::Other { kind: "schema".to_owned(), name: schema.unwrap_or_default() });
        return;
    }
    let column = child_of(part, K::QUALIFIED_COLUMN_NAME_REF).ok_or("a column has no name".to_owned());
    let relation = column.and_then(|column| names::parts(&column)).and_then(|mut parts| {
        parts.pop();
        names::from_parts(parts)
    });
    draft.add(verb, relation.map(Reference::Relation));
}

/// A relation named inside the statement: read for its shape by LIKE, else changed with the statement's subject.
fn touch(draft: &mut Draft, part: &SyntaxNode, verb: Verb) {
    let verb = match part.parent().map(|parent| parent.kind()) {
        Some(K::LIKE_CLAUSE) => Verb::DataRead,
        // A trigger or rule goes, its relation stays.
        Some(K::ON_RELATION) if verb == Verb::SchemaDrop => Verb::SchemaAlter,
        // It gets one more child; those that it has get nothing.
        Some(K::INHERITS) if verb == Verb::SchemaCreate => {
            return draft.walk.alone(Verb::SchemaAlter, part);
        }
        _ if verb == Verb::SchemaCreate => Verb::SchemaAlter,
        _ => verb,
    };
    draft.walk.relation(&[verb], part);
}

/// Parts of ALTER that change who may do what.
fn access(draft: &mut Draft, node: &SyntaxNode, kind: SyntaxKind) {
    let changes = matches!(
        kind,
        K::OWNER_TO
            | K::ENABLE_RLS
            | K::DISABLE_RLS
            | K::FORCE_RLS
            | K::NO_FORCE_RLS
            | K::SECURITY_DEFINER_FUNC_OPTION
    );
    if changes {
        let subject = node.children().find(|child| is_relation(child.kind()));
        match subject {
            Some(subject) => draft.walk.relation(&[Verb::AccessChange], &subject),
            None => draft.walk.add(Verb::AccessChange, Reference::Resource),
        }
    }
}

/// Nodes that the walk of queries and expressions begins at.
fn is_query(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        K::SELECT
            | K::SELECT_INTO
            | K::COMPOUND_SELECT
            | K::PAREN_SELECT
            | K::TABLE
            | K::VALUES
            | K::CALL_EXPR
            | K::FIELD_EXPR
            | K::BIN_EXPR
            | K::PAREN_EXPR
            | K::CAST_EXPR
            | K::CASE_EXPR
            | K::WHERE_CLAUSE
    )
}

/// Nodes that mean something this module does not know.
fn is_unreadable(kind: SyntaxKind) -> bool {
    matches!(kind, K::ERROR | K::NON_STANDARD_PARAM | K::GRAPH_TABLE_FN | K::GRAPH_TABLE_FROM_ITEM)
        || format!("{kind:?}").starts_with("PLPGSQL")
}
