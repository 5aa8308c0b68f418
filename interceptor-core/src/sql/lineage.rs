//! What a statement's values are made of, as far as its text tells: by names as written, without the catalogue.
//!
//! The question that this serves is only ever "can this output hold a labelled value?", so that names are not resolved
//! in their scopes: a name that may mean a labelled column anywhere in the statement means it everywhere. Promise: what
//! is left out makes an output look cleaner only where the text shows it clean; constructs whose names or places are
//! not plain make all of the statement `odd`.

use std::collections::BTreeSet;

use rowan::TextRange;
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{
    Compared, Name, compared,
    lexer::Token,
    names,
    puts::{self, Put},
    walk::{child_of, has_token},
};

/// Harmless built-in functions that give any number of rows, in order (`proretset` of PostgreSQL 15 and 18): how many hangs
/// on what they are given, wherever they stand.
const GIVE_ROWS: [&str; 31] = [
    "generate_series",
    "generate_subscripts",
    "json_array_elements",
    "json_array_elements_text",
    "json_each",
    "json_each_text",
    "json_object_keys",
    "json_populate_recordset",
    "json_to_recordset",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_object_keys",
    "jsonb_path_query",
    "jsonb_path_query_tz",
    "jsonb_populate_recordset",
    "jsonb_to_recordset",
    "pg_get_catalog_foreign_keys",
    "pg_get_keywords",
    "pg_options_to_table",
    "pg_snapshot_xip",
    "pg_timezone_abbrevs",
    "pg_timezone_names",
    "regexp_matches",
    "regexp_split_to_table",
    "string_to_table",
    "ts_parse",
    "ts_token_type",
    "txid_snapshot_xip",
    "unnest",
];

/// What is mentioned somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    /// Names of columns, or of what may be a whole row.
    pub names: BTreeSet<String>,
    /// Names behind a dot: columns, or functions of the row before it.
    pub fields: BTreeSet<String>,
    /// Whether all columns of something are.
    pub whole: bool,
}

/// One output of the outermost query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Whether it is a star, which stands for any number of outputs.
    pub star: bool,
    /// What it is made of.
    pub uses: Uses,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The outputs of the outermost query or RETURNING, in order; none where they cannot be told one by one.
    pub outputs: Option<Vec<Output>>,
    /// Names that the statement gives to values, with what those are made of.
    pub given: Vec<(String, Uses)>,
    /// What has a name that the text does not tell: outputs of inner queries, of functions in FROM, and VALUES.
    pub unnamed: Vec<Uses>,
    /// Names of columns that are given by their places, and so may stand for anything.
    pub renamed: BTreeSet<String>,
    /// Names of tables, aliases and WITH queries, each of which may stand for a whole row.
    pub rows: BTreeSet<String>,
    /// What decides which rows there are, or their order.
    pub filters: Uses,
    /// The same without `compared`.
    pub filters_besides: Uses,
    /// Comparisons that decide which rows there are, in which a token may stand.
    pub compared: Vec<Compared>,
    /// What is written somewhere else.
    pub written: Uses,
    /// The same by where it goes, as far as that is a column of a relation.
    pub puts: Vec<Put>,
    /// All that is mentioned.
    pub all: Uses,
    /// Whether something stands in it that is not followed.
    pub odd: bool,
}

impl Uses {
    pub(super) fn add(&mut self, other: &Self) {
        self.names.extend(other.names.iter().cloned());
        self.fields.extend(other.fields.iter().cloned());
        self.whole |= other.whole;
    }

    /// Whether nothing is mentioned.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.fields.is_empty() && !self.whole
    }
}

/// What is known of a statement while its parts are read.
struct Around {
    outermost: Option<SyntaxNode>,
    /// Where its comparisons stand.
    compared: Vec<TextRange>,
}

/// Reads a statement that has these tokens.
pub(super) fn lineage(statement: &SyntaxNode, tokens: &[Token]) -> Lineage {
    let (places, compared) = compared::find(statement, tokens).into_iter().unzip();
    let mut lineage = Lineage { all: uses(statement), compared, ..Lineage::default() };
    let around = Around { outermost: outermost(statement), compared: places };
    lineage.outputs = around.outermost.as_ref().and_then(outputs);
    for node in statement.descendants() {
        lineage.node(&node, &around);
        puts::node(&node, &mut lineage.puts);
    }
    lineage.rows.extend(["excluded", "new", "old"].map(str::to_owned));
    if lineage.all.names.contains(UNREADABLE) || lineage.all.fields.contains(UNREADABLE) {
        lineage.odd = true;
    }
    lineage
}

/// What stands for a name that cannot be read. No name is written so.
const UNREADABLE: &str = "\0";

/// A relation as it is written.
pub(super) fn relation(node: &SyntaxNode) -> Name {
    names::relation(node).unwrap_or_else(|_| Name { schema: None, name: UNREADABLE.to_owned() })
}

pub(super) fn name(node: &SyntaxNode) -> String {
    names::dotted(node).unwrap_or_else(|_| UNREADABLE.to_owned())
}

/// What is mentioned at or below `node`.
pub(super) fn uses(node: &SyntaxNode) -> Uses {
    uses_but(node, &[])
}

/// The same but for what stands in one of these places.
fn uses_but(node: &SyntaxNode, places: &[TextRange]) -> Uses {
    use SyntaxKind::*;
    let mut uses = Uses::default();
    for part in node.descendants() {
        if places.iter().any(|place| place.contains_range(part.text_range())) {
            continue;
        }
        match part.kind() {
            NAME_REF => match role(&part) {
                Role::Name => drop(uses.names.insert(name(&part))),
                Role::Field => drop(uses.fields.insert(name(&part))),
                Role::Qualifier => {}
            },
            COLUMN_NAME_REF if part.parent().is_none_or(|parent| parent.kind() != COLUMN_TARGET) => {
                uses.names.insert(name(&part));
            }
            TABLE => uses.whole = true,
            TARGET if is_star(&part) && !below_exists(&part) => uses.whole = true,
            // A row that is taken apart in the middle of an expression.
            FIELD_EXPR if has_token(&part, STAR) => uses.whole = true,
            _ => {}
        }
    }
    uses
}

/// What a name is in an expression.
enum Role {
    Name,
    Field,
    Qualifier,
}

fn role(part: &SyntaxNode) -> Role {
    let is_field_expression = |node: &SyntaxNode| node.kind() == SyntaxKind::FIELD_EXPR;
    let Some(dotted) = part.parent().filter(is_field_expression) else { return Role::Name };
    let behind = part.next_sibling().is_some() || has_token(&dotted, SyntaxKind::STAR);
    if behind || dotted.parent().is_some_and(|above| is_field_expression(&above)) {
        return Role::Qualifier;
    }
    if part.prev_sibling().is_some() { Role::Field } else { Role::Name }
}

fn is_star(target: &SyntaxNode) -> bool {
    let star = |node: &SyntaxNode| has_token(node, SyntaxKind::STAR);
    star(target) || target.children().any(|child| child.kind() == SyntaxKind::FIELD_EXPR && star(&child))
}

/// Whether a target is that of EXISTS (SELECT ...), which looks at none.
fn below_exists(target: &SyntaxNode) -> bool {
    use SyntaxKind::*;
    let mut above = target.ancestors().skip(1);
    let list = [TARGET_LIST, SELECT_CLAUSE, SELECT];
    let plain = list.into_iter().all(|kind| above.next().is_some_and(|node| node.kind() == kind));
    plain
        && above.find(|node| node.kind() != PAREN_SELECT).is_some_and(|node| matches!(node.kind(), EXISTS_FN))
}

/// The query or data statement whose rows are the statement's answer.
fn outermost(statement: &SyntaxNode) -> Option<SyntaxNode> {
    use SyntaxKind::*;
    match statement.kind() {
        SELECT | COMPOUND_SELECT | VALUES | TABLE | INSERT | UPDATE | DELETE | MERGE => {
            Some(statement.clone())
        }
        PAREN_SELECT | DECLARE => statement.children().find_map(|child| outermost(&child)),
        _ => None,
    }
}

pub(super) fn outputs(query: &SyntaxNode) -> Option<Vec<Output>> {
    use SyntaxKind::*;
    match query.kind() {
        SELECT => targets(&child_of(query, SELECT_CLAUSE)?),
        INSERT | UPDATE | DELETE | MERGE => {
            child_of(query, RETURNING_CLAUSE).map_or(Some(Vec::new()), |returning| targets(&returning))
        }
        PAREN_SELECT => query.children().find_map(|child| outputs(&child)),
        COMPOUND_SELECT => {
            let mut branches = branches(query).into_iter().map(|branch| outputs(&branch));
            let mut merged = branches.next()??;
            for branch in branches {
                let branch = branch?;
                if branch.len() != merged.len() {
                    return None;
                }
                for (one, other) in merged.iter_mut().zip(&branch) {
                    one.uses.add(&other.uses);
                    one.star |= other.star;
                }
            }
            // Where a star stands in one of several branches, nothing has its place.
            merged.iter().all(|output| !output.star).then_some(merged)
        }
        TABLE => Some(vec![Output { star: true, uses: Uses { whole: true, ..Uses::default() } }]),
        _ => None,
    }
}

/// The queries that a compound one puts together, through all links of the chain.
fn branches(compound: &SyntaxNode) -> Vec<SyntaxNode> {
    use SyntaxKind::*;
    let mut found = Vec::new();
    let mut left = vec![compound.clone()];
    while let Some(node) = left.pop() {
        for child in node.children() {
            match child.kind() {
                COMPOUND_SELECT => left.push(child),
                SELECT | PAREN_SELECT | VALUES | TABLE => found.push(child),
                _ => {}
            }
        }
    }
    found
}

/// Whether all links of a chain are UNION ALL, which compares nothing.
fn keeps_all_rows(compound: &SyntaxNode) -> bool {
    use SyntaxKind::*;
    let mut left = vec![compound.clone()];
    while let Some(node) = left.pop() {
        for child in node.children() {
            match child.kind() {
                COMPOUND_SELECT => left.push(child),
                UNION if child_of(&child, ALL).is_some() => {}
                UNION | INTERSECT | EXCEPT => return false,
                _ => {}
            }
        }
    }
    true
}

pub(super) fn targets(clause: &SyntaxNode) -> Option<Vec<Output>> {
    let Some(list) = child_of(clause, SyntaxKind::TARGET_LIST) else { return Some(Vec::new()) };
    Some(
        list.children()
            .filter(|child| child.kind() == SyntaxKind::TARGET)
            .map(|target| Output { star: is_star(&target), uses: uses(&target) })
            .collect(),
    )
}

impl Lineage {
    /// What is at or below `node` decides which rows there are, or their order.
    fn filter(&mut self, node: &SyntaxNode, around: &Around) {
        self.filters.add(&uses(node));
        self.filters_besides.add(&uses_but(node, &around.compared));
    }

    fn filter_by_all(&mut self) {
        self.filters.whole = true;
        self.filters_besides.whole = true;
    }

    fn node(&mut self, node: &SyntaxNode, around: &Around) {
        use SyntaxKind::*;
        let outermost = around.outermost.as_ref();
        match node.kind() {
            TARGET => self.target(node, outermost),
            COMPOUND_SELECT => self.compound(node, around),
            VALUES if Some(node) != outermost => self.unnamed.push(uses(node)),
            FUNCTION_FROM_ITEM | ROWS_FROM_ITEM | EXPR_FROM_ITEM => {
                // Its alias names its columns too, and so does the function.
                self.unnamed.push(calls(node));
            }
            CALL_EXPR if gives_rows(node) => self.filter(node, around),
            JSON_TABLE | XML_TABLE | SEARCH_CLAUSE | CYCLE_CLAUSE => self.odd = true,
            TABLE_ALIAS | CTE_NAME => drop(self.rows.insert(name(node))),
            RELATION_NAME_REF | TABLE_NAME_REF => {
                if let Ok(relation) = names::relation(node) {
                    self.rows.insert(relation.name);
                }
            }
            COLUMN_LIST | COLUMN_DEF_LIST
                if node.parent().is_some_and(|parent| matches!(parent.kind(), FROM_ALIAS | WITH_TABLE)) =>
            {
                let columns = node.descendants().filter(|part| part.kind() == COLUMN_NAME);
                self.renamed.extend(columns.map(|column| name(&column)));
            }
            WHERE_CLAUSE | HAVING_CLAUSE | ON_CLAUSE | JOIN_USING_CLAUSE | WINDOW_CLAUSE | LIMIT_CLAUSE
            | OFFSET_CLAUSE | FETCH_CLAUSE | CONFLICT_ON_INDEX | MERGE_CONDITION | FILTER_CLAUSE
            | DISTINCT_ON | TABLESAMPLE_CLAUSE => self.filter(node, around),
            // From then on it does, for whoever reads.
            CREATE_POLICY | ALTER_POLICY => self.filter(node, around),
            GROUP_BY_CLAUSE | ORDER_BY_CLAUSE => self.order(node, around),
            DISTINCT_CLAUSE => {
                if let Some(clause) = node.parent() {
                    self.filter(&clause, around);
                }
            }
            SET_CLAUSE | MERGE_INSERT => self.written.add(&uses(node)),
            INSERT => {
                let source = |kind| matches!(kind, SELECT | COMPOUND_SELECT | PAREN_SELECT | VALUES | TABLE);
                for part in node.children().filter(|child| source(child.kind())) {
                    self.written.add(&uses(&part));
                }
            }
            CREATE_TABLE_AS | SELECT_INTO | ALTER_TABLE => self.written.add(&uses(node)),
            JOIN if has_token(node, NATURAL_KW) => self.filter_by_all(),
            JOIN_EXPR if has_token(node, NATURAL_KW) => self.filter_by_all(),
            FROM_CLAUSE => {
                // How many rows a function gives hangs on what it is given.
                for part in node.descendants().filter(|part| part.kind() == FUNCTION_FROM_ITEM) {
                    let given = calls(&part);
                    self.filters.add(&given);
                    self.filters_besides.add(&given);
                }
            }
            _ => {}
        }
    }

    /// A place of ORDER BY or GROUP BY may be that of an output.
    fn order(&mut self, node: &SyntaxNode, around: &Around) {
        self.filter(node, around);
        let by_place = node.descendants().any(|part| part.kind() == SyntaxKind::LITERAL);
        let all = node.descendants_with_tokens().any(|part| part.kind() == SyntaxKind::ALL_KW);
        if (by_place || all)
            && let Some(query) = node.parent()
        {
            for list in query.descendants().filter(|part| part.kind() == SyntaxKind::TARGET_LIST) {
                self.filter(&list, around);
            }
        }
    }

    fn target(&mut self, target: &SyntaxNode, outermost: Option<&SyntaxNode>) {
        use SyntaxKind::*;
        if is_star(target) {
            return;
        }
        let made_of = uses(target);
        let own = child_of(target, AS_NAME).and_then(|alias| child_of(&alias, COLUMN_NAME));
        match own {
            Some(alias) => self.given.push((name(&alias), made_of)),
            None => {
                // An expression is called after a function, a type or a word in it.
                let plain = target.children().all(|child| matches!(child.kind(), NAME_REF | FIELD_EXPR));
                let top = target.parent().and_then(|list| list.parent()).and_then(|clause| clause.parent());
                // Nor can what goes into a relation by its place be named.
                let by_place = top.as_ref().is_some_and(|query| {
                    let above = query.parent().map(|above| above.kind());
                    query.kind() == SELECT_INTO || matches!(above, Some(INSERT | CREATE_TABLE_AS))
                });
                if !(plain || by_place || (top.is_some() && top.as_ref() == outermost)) {
                    self.unnamed.push(made_of);
                }
            }
        }
    }

    /// The columns of a compound query are called after those of its first branch.
    fn compound(&mut self, node: &SyntaxNode, around: &Around) {
        use SyntaxKind::*;
        // A chain leans to the left: it is read once, from its top.
        if node.parent().is_some_and(|parent| parent.kind() == COMPOUND_SELECT) {
            return;
        }
        if !keeps_all_rows(node) {
            self.filter(node, around);
        }
        if Some(node) == around.outermost.as_ref() {
            return;
        }
        match outputs(node) {
            Some(places) => {
                let branches = branches(node);
                let lists = branches
                    .iter()
                    .flat_map(SyntaxNode::children)
                    .filter_map(|clause| child_of(&clause, TARGET_LIST));
                for list in lists {
                    for (target, place) in list.children().filter(|child| child.kind() == TARGET).zip(&places)
                    {
                        let alias =
                            child_of(&target, AS_NAME).and_then(|alias| child_of(&alias, COLUMN_NAME));
                        let last = target.descendants().filter(|part| part.kind() == NAME_REF).last();
                        match alias.or(last) {
                            Some(column) => self.given.push((name(&column), place.uses.clone())),
                            None => self.unnamed.push(place.uses.clone()),
                        }
                    }
                }
            }
            None => self.unnamed.push(uses(node)),
        }
    }
}

fn gives_rows(call: &SyntaxNode) -> bool {
    let callee = call
        .children()
        .next()
        .filter(|callee| matches!(callee.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR));
    let parts = callee.map(|callee| names::parts(&callee));
    match parts {
        None => false,
        // A name that cannot be read may be any.
        Some(Err(_)) => true,
        Some(Ok(parts)) => parts.last().is_some_and(|name| GIVE_ROWS.binary_search(&name.as_str()).is_ok()),
    }
}

/// What the calls of an item of FROM are given.
fn calls(item: &SyntaxNode) -> Uses {
    let mut all = Uses::default();
    for call in item.children().filter(|child| child.kind() != SyntaxKind::FROM_ALIAS) {
        let given = call.children().skip(usize::from(call.kind() == SyntaxKind::CALL_EXPR));
        for part in given {
            all.add(&uses(&part));
        }
        if call.kind() != SyntaxKind::CALL_EXPR {
            all.add(&uses(&call));
        }
    }
    all
}
