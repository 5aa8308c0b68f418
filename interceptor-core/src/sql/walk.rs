//! Walks queries and data statements and gathers what they read, write and call.
//!
//! By allow-list: a node that is neither handled here nor plain makes the statement unknown. The walk recurses
//! only where brackets nest, which the guard bounds; chains are walked with a stack of its own.

use std::collections::BTreeSet;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{Name, Reference, kinds::is_plain, names};
use crate::model::{Unknown, Verb};

/// Words that look like functions and are part of the grammar in every version.
const GRAMMAR_WORDS: [&str; 7] = ["coalesce", "greatest", "grouping", "least", "nullif", "row", "xmlconcat"];

/// What a statement was found to do so far.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) effects: Vec<(Verb, Reference)>,
    pub(super) unknown: Option<Unknown>,
    /// Set by the first UPDATE or DELETE without WHERE.
    pub(super) unbounded: bool,
    /// Names of common table expressions that hide relations, outermost first.
    scopes: Vec<Vec<String>>,
    /// WITH clauses already walked on behalf of a compound query that they govern.
    hoisted: BTreeSet<u32>,
    /// Where the relations and calls stand that were counted.
    reached: BTreeSet<u32>,
}

impl Walk {
    /// Adds an effect.
    pub(super) fn add(&mut self, verb: Verb, reference: Reference) {
        self.effects.push((verb, reference));
    }

    /// Notes the first reason why the statement is not fully understood.
    pub(super) fn not_understood(&mut self, reason: impl Into<String>) {
        self.unknown.get_or_insert_with(|| Unknown(reason.into()));
    }

    /// Makes sure that no relation and no call below `node` was passed over, whatever stood around it.
    pub(super) fn check_complete(&mut self, node: &SyntaxNode) {
        use SyntaxKind::*;
        let missed = node.descendants().find(|part| {
            matches!(part.kind(), RELATION_NAME_REF | TABLE_NAME_REF | VIEW_REF | SEQUENCE_REF | CALL_EXPR)
                && !self.reached.contains(&part.text_range().start().into())
        });
        if let Some(missed) = missed {
            self.not_understood(format!("{:?} stands where none is expected", missed.kind()));
        }
    }

    /// Notes that the relations below `node` are counted.
    fn reach(&mut self, node: &SyntaxNode) {
        let references = node.descendants().filter(|part| part.kind() == SyntaxKind::PATH_REF);
        self.reached.extend(references.take(1).map(|part| u32::from(part.text_range().start())));
    }

    /// Adds effects on the relation that `node` names.
    pub(super) fn relation(&mut self, verbs: &[Verb], node: &SyntaxNode) {
        self.reach(node);
        match names::relation(node) {
            Ok(name) => {
                for verb in verbs {
                    self.add(*verb, Reference::Relation(name.clone()));
                }
            }
            Err(reason) => self.not_understood(reason),
        }
    }

    /// Adds an effect on the relation that `node` names, and on none that inherits from it.
    pub(super) fn alone(&mut self, verb: Verb, node: &SyntaxNode) {
        self.reach(node);
        match names::relation(node) {
            Ok(name) => self.add(verb, Reference::Alone(name)),
            Err(reason) => self.not_understood(reason),
        }
    }

    /// Lets `name` hide a relation from now on.
    pub(super) fn hide(&mut self, name: String) {
        self.scopes.push(vec![name]);
    }

    /// Walks a query, a data statement or an expression with all that is below it.
    pub(super) fn walk(&mut self, node: &SyntaxNode) {
        let mut stack = vec![node.clone()];
        while let Some(node) = stack.pop() {
            self.step(&node, &mut stack);
        }
    }

    /// Walks everything below `node`.
    pub(super) fn walk_children(&mut self, node: &SyntaxNode) {
        for child in node.children() {
            self.walk(&child);
        }
    }

    fn step(&mut self, node: &SyntaxNode, stack: &mut Vec<SyntaxNode>) {
        use SyntaxKind::*;
        match node.kind() {
            SELECT | SELECT_INTO | VALUES | TABLE | PAREN_SELECT | COMPOUND_SELECT => self.query(node),
            INSERT => self.scoped(node, Self::insert),
            UPDATE => self.scoped(node, |walk, node| walk.change(node, Verb::DataUpdate)),
            DELETE => self.scoped(node, |walk, node| walk.change(node, Verb::DataDelete)),
            MERGE => self.scoped(node, Self::merge),
            RELATION_FROM_ITEM => {
                for child in node.children() {
                    if child.kind() == RELATION_NAME_REF { self.read(&child) } else { stack.push(child) }
                }
            }
            // TABLE t, whose target is read; targets of writes are taken by their statements.
            RELATION_NAME => self.read(node),
            CALL_EXPR => self.call(node, stack),
            FIELD_EXPR => self.field(node, stack),
            JSON_TABLE => {
                self.add(
                    Verb::FunctionCall,
                    Reference::Function(Name { schema: None, name: "json_table".into() }),
                );
                stack.extend(node.children());
            }
            // Operators are read from the tokens, where their names are whole.
            OP => stack.extend(node.children().filter(|child| child.kind() != PATH_REF)),
            NAME_REF | LITERAL | COLLATION_REF | OP_CLASS_REF | CONSTRAINT_NAME_REF => {}
            PATH_TYPE => stack.extend(node.children().filter(|child| child.kind() != PATH_REF)),
            OPERATOR_CALL | XML_TABLE => stack.extend(node.children()),
            kind if is_plain(kind) => stack.extend(node.children()),
            kind => self.not_understood(format!("{kind:?} is not a construct that is read here")),
        }
    }

    /// A relation in FROM or behind TABLE: a read, unless it is a common table expression.
    fn read(&mut self, node: &SyntaxNode) {
        self.reach(node);
        match names::relation(node) {
            Ok(Name { schema: None, name }) if self.scopes.iter().flatten().any(|hidden| *hidden == name) => {
            }
            Ok(name) => self.add(Verb::DataRead, Reference::Relation(name)),
            Err(reason) => self.not_understood(reason),
        }
    }

    /// Runs `inner` with the scope of the statement's own WITH clause.
    fn scoped(&mut self, node: &SyntaxNode, inner: impl FnOnce(&mut Self, &SyntaxNode)) {
        let depth = self.scopes.len();
        if let Some(with) = child_of(node, SyntaxKind::WITH_CLAUSE) {
            self.with_clause(&with);
        }
        inner(self, node);
        self.scopes.truncate(depth);
    }

    fn with_clause(&mut self, with: &SyntaxNode) {
        if !self.hoisted.insert(with.text_range().start().into()) {
            return;
        }
        let tables: Vec<SyntaxNode> = with.children().collect();
        let mut named = Vec::new();
        for table in &tables {
            let name = child_of(table, SyntaxKind::CTE_NAME).ok_or("a WITH query has no name".to_owned());
            match name.and_then(|name| names::dotted(&name)) {
                Ok(name) if table.kind() == SyntaxKind::WITH_TABLE => named.push(name),
                Ok(_) => return self.not_understood("a WITH clause has an unexpected part"),
                Err(reason) => return self.not_understood(reason),
            }
        }
        let recursive = has_token(with, SyntaxKind::RECURSIVE_KW);
        self.scopes.push(if recursive { named.clone() } else { Vec::new() });
        for (table, name) in tables.iter().zip(named) {
            for child in table.children().filter(|child| child.kind() != SyntaxKind::CTE_NAME) {
                self.walk(&child);
            }
            if let Some(scope) = self.scopes.last_mut() {
                scope.push(name);
            }
        }
    }

    /// A query. Its WITH clause governs all of it; in the tree that of a compound query hangs on its first part.
    fn query(&mut self, node: &SyntaxNode) {
        let depth = self.scopes.len();
        let mut first = node.clone();
        while first.kind() == SyntaxKind::COMPOUND_SELECT
            && let Some(operand) = first.children().next()
        {
            first = operand;
        }
        if let Some(with) = child_of(&first, SyntaxKind::WITH_CLAUSE) {
            self.with_clause(&with);
        }
        let mut operands = vec![node.clone()];
        while let Some(part) = operands.pop() {
            self.query_part(&part, &mut operands);
        }
        self.scopes.truncate(depth);
    }

    fn query_part(&mut self, part: &SyntaxNode, operands: &mut Vec<SyntaxNode>) {
        let compound = part.kind() == SyntaxKind::COMPOUND_SELECT;
        let locks = part.children().any(|child| child.kind() == SyntaxKind::LOCKING_CLAUSE);
        let before = self.effects.len();
        // FROM first, so that what FOR UPDATE locks can be told from what conditions read.
        if let Some(from) = child_of(part, SyntaxKind::FROM_CLAUSE) {
            self.walk_children(&from);
        }
        let mut lockable = before..self.effects.len();
        for child in part.children() {
            match child.kind() {
                SyntaxKind::FROM_CLAUSE => {}
                SyntaxKind::WITH_CLAUSE => {
                    if !self.hoisted.contains(&child.text_range().start().into()) {
                        self.not_understood("a WITH clause stands inside a compound query");
                    }
                }
                SyntaxKind::INTO_CLAUSE => self.select_into(&child),
                // A chain of UNION leans to the left; its links are no nesting.
                SyntaxKind::COMPOUND_SELECT if compound => operands.push(child),
                SyntaxKind::SELECT | SyntaxKind::VALUES | SyntaxKind::TABLE if compound => {
                    operands.push(child)
                }
                _ => self.walk(&child),
            }
        }
        if locks {
            if lockable.is_empty() {
                lockable.end = self.effects.len();
            }
            let read = self.effects.get(lockable).unwrap_or_default();
            let locked: Vec<_> = read
                .iter()
                .filter(|(verb, _)| *verb == Verb::DataRead)
                .map(|(_, what)| what.clone())
                .collect();
            self.effects.extend(locked.into_iter().map(|what| (Verb::DataLock, what)));
        }
    }

    fn select_into(&mut self, node: &SyntaxNode) {
        match names::relation(node) {
            Ok(name) => {
                let temporary = child_of(node, SyntaxKind::TEMP).is_some();
                self.add(Verb::SchemaCreate, new_relation(name, temporary));
            }
            Err(reason) => self.not_understood(reason),
        }
    }

    /// INSERT adds to its target. ON CONFLICT DO UPDATE also changes and reads it; RETURNING reads it.
    fn insert(&mut self, node: &SyntaxNode) {
        let Some(target) = child_of(node, SyntaxKind::RELATION_NAME_REF) else {
            return self.not_understood("INSERT has no target");
        };
        self.relation(&[Verb::DataInsert], &target);
        if let Some(conflict) = child_of(node, SyntaxKind::ON_CONFLICT_CLAUSE) {
            for action in conflict.children() {
                match action.kind() {
                    SyntaxKind::CONFLICT_DO_UPDATE_SET => {
                        self.relation(&[Verb::DataUpdate, Verb::DataRead], &target);
                    }
                    SyntaxKind::CONFLICT_DO_SELECT => {
                        self.relation(&[Verb::DataRead, Verb::DataLock], &target);
                    }
                    _ => {}
                }
            }
        }
        if child_of(node, SyntaxKind::RETURNING_CLAUSE).is_some() {
            self.relation(&[Verb::DataRead], &target);
        }
        self.rest(node, &[SyntaxKind::RELATION_NAME_REF]);
    }

    /// UPDATE and DELETE. They read their target too when what they do or answer depends on its rows: with WHERE,
    /// FROM, USING or RETURNING, or when SET computes from columns.
    fn change(&mut self, node: &SyntaxNode, verb: Verb) {
        use SyntaxKind::*;
        let Some(target) = child_of(node, RELATION_NAME) else {
            return self.not_understood("the statement has no target");
        };
        self.relation(&[verb], &target);
        let has = |kind| child_of(node, kind).is_some();
        let computes = child_of(node, SET_CLAUSE).is_some_and(|set| {
            set.descendants().any(|n| n.kind() == SET_EXPR && n.descendants().any(|e| e.kind() == NAME_REF))
                || set.descendants().any(|n| n.kind() == PAREN_SELECT)
        });
        let bounded = has(WHERE_CLAUSE) || has(WHERE_CURRENT_OF);
        self.unbounded |= !bounded;
        if bounded || has(FROM_CLAUSE) || has(USING_CLAUSE) || has(RETURNING_CLAUSE) || computes {
            self.relation(&[Verb::DataRead], &target);
        }
        self.rest(node, &[RELATION_NAME]);
    }

    /// MERGE compares, so it reads its target, and does to it what its branches say.
    fn merge(&mut self, node: &SyntaxNode) {
        use SyntaxKind::*;
        let Some(target) = child_of(node, TABLE_RELATION_NAME) else {
            return self.not_understood("MERGE has no target");
        };
        self.relation(&[Verb::DataRead], &target);
        for branch in node.children().flat_map(|child| child.children().collect::<Vec<_>>()) {
            let verb = match branch.kind() {
                MERGE_INSERT => Verb::DataInsert,
                MERGE_UPDATE => Verb::DataUpdate,
                MERGE_DELETE => Verb::DataDelete,
                _ => continue,
            };
            self.relation(&[verb], &target);
        }
        self.rest(node, &[TABLE_RELATION_NAME]);
    }

    /// All children but WITH and the `handled` ones.
    fn rest(&mut self, node: &SyntaxNode, handled: &[SyntaxKind]) {
        for child in node.children() {
            if child.kind() != SyntaxKind::WITH_CLAUSE && !handled.contains(&child.kind()) {
                self.walk(&child);
            }
        }
    }

    fn call(&mut self, node: &SyntaxNode, stack: &mut Vec<SyntaxNode>) {
        self.reached.insert(node.text_range().start().into());
        let mut children = node.children();
        match children.next() {
            Some(callee) => self.callee(node, &callee, stack),
            None => self.not_understood("a call has no name"),
        }
        stack.extend(children);
    }

    fn callee(&mut self, call: &SyntaxNode, callee: &SyntaxNode, stack: &mut Vec<SyntaxNode>) {
        use SyntaxKind::*;
        match callee.kind() {
            NAME_REF => {
                let written = callee.text().to_string();
                if GRAMMAR_WORDS.binary_search(&written.to_ascii_lowercase().as_str()).is_err() {
                    self.function(call, callee);
                }
            }
            FIELD_EXPR if is_dotted_name(callee) => self.function(call, callee),
            // SUBSTRING(a, b) and OVERLAY(a, b) without keywords are calls like any other.
            SUBSTRING_FN | OVERLAY_FN => {
                self.named_function(if callee.kind() == OVERLAY_FN { "overlay" } else { "substring" });
                stack.extend(callee.children());
            }
            // Grammar in some versions, functions by that name in others.
            JSON_EXISTS_FN | JSON_ARRAY_FN | JSON_OBJECT_FN | JSON_OBJECT_AGG_FN | JSON_ARRAY_AGG_FN
            | JSON_QUERY_FN | JSON_SCALAR_FN | JSON_SERIALIZE_FN | JSON_VALUE_FN | JSON_FN => {
                let word = callee.first_token().map(|token| token.text().to_ascii_lowercase());
                self.named_function(&word.unwrap_or_default());
                stack.extend(callee.children());
            }
            EXTRACT_FN | POSITION_FN | TRIM_FN | XML_ROOT_FN | XML_SERIALIZE_FN | XML_ELEMENT_FN
            | XML_FOREST_FN | XML_EXISTS_FN | XML_PARSE_FN | XML_PI_FN | SOME_FN | ANY_FN | ALL_FN
            | COLLATION_FOR_FN | EXISTS_FN => stack.extend(callee.children()),
            kind => self.not_understood(format!("a call of {kind:?} is not read here")),
        }
    }

    fn function(&mut self, call: &SyntaxNode, callee: &SyntaxNode) {
        match names::parts(callee).and_then(names::from_parts) {
            Ok(function) if function.name == "set_config" => {
                let setting = string_at(call, 0).map(|name| name.to_ascii_lowercase());
                let value = string_at(call, 1);
                self.add(Verb::FunctionCall, Reference::SetConfig { function, setting, value });
            }
            Ok(name) => self.add(Verb::FunctionCall, Reference::Function(name)),
            Err(reason) => self.not_understood(reason),
        }
    }

    fn named_function(&mut self, name: &str) {
        self.add(Verb::FunctionCall, Reference::Function(Name { schema: None, name: name.to_owned() }));
    }

    /// `a.b`, which is a column or, where there is none, the function `b` applied to the row `a`.
    fn field(&mut self, node: &SyntaxNode, stack: &mut Vec<SyntaxNode>) {
        let children: Vec<SyntaxNode> = node.children().collect();
        let field = match children.as_slice() {
            [base] => {
                stack.push(base.clone());
                None
            }
            [base, field] => {
                stack.push(base.clone());
                Some(field)
            }
            _ => return self.not_understood("a field has an unexpected form"),
        };
        if let Some(field) = field.filter(|field| field.kind() == SyntaxKind::NAME_REF) {
            match names::dotted(field) {
                Ok(name) => self.add(Verb::FunctionCall, Reference::Attribute(name)),
                Err(reason) => self.not_understood(reason),
            }
        }
    }
}

/// What a new relation is called; a temporary one is made in the session's own schema.
pub(super) fn new_relation(name: Name, temporary: bool) -> Reference {
    let schema = if temporary && name.schema.is_none() { Some("pg_temp".to_owned()) } else { name.schema };
    Reference::NewRelation(Name { schema, name: name.name })
}

/// The first child of a kind.
pub(super) fn child_of(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.children().find(|child| child.kind() == kind)
}

/// Whether a token of a kind stands directly in `node`.
pub(super) fn has_token(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens().any(|element| element.kind() == kind)
}

/// An argument of a call, where that is a string in plain quotes with nothing in it to be decoded.
fn string_at(call: &SyntaxNode, place: usize) -> Option<String> {
    let argument = child_of(call, SyntaxKind::ARG_LIST)?.children().nth(place)?;
    let literal = argument.children().next().filter(|part| part.kind() == SyntaxKind::LITERAL)?;
    // Neither VARIADIC nor an argument's name stands before it, and nothing behind it.
    let written = (literal.text_range() == argument.text_range()).then(|| literal.text().to_string())?;
    plain_string(&written)
}

/// What stands in plain quotes without a quote or a backslash inside.
pub(super) fn plain_string(written: &str) -> Option<String> {
    let inside = written.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inside.contains(['\'', '\\'])).then(|| inside.to_owned())
}

fn is_dotted_name(node: &SyntaxNode) -> bool {
    node.descendants().all(|part| matches!(part.kind(), SyntaxKind::FIELD_EXPR | SyntaxKind::NAME_REF))
        && !has_token(node, SyntaxKind::STAR)
}
