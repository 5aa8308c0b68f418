//! From the parser's tree to effects: queries. What changes rows, `rows.rs` has.
//!
//! Promise: each node is walked by name or makes the statement `unknown`; a field that has no meaning in MySQL has to be
//! empty. A new field of the parser's does not compile.

use std::mem;

use sqlparser::ast::{
    Distinct, GroupByExpr, GroupByWithModifier, Ident, Join, JoinConstraint, JoinOperator, LimitClause,
    NamedWindowExpr, ObjectName, ObjectNamePart, OrderBy, OrderByExpr, OrderByKind, Query, Select,
    SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, TableFactor,
    TableWithJoins, WildcardAdditionalOptions, WindowFrameBound, WindowSpec, With,
};

use super::{Name, Reading, Reference, words::is_reserved};
use crate::model::{StatementKind, Verb};

/// A statement that is being walked.
pub(super) struct Walk {
    pub(super) reading: Reading,
    /// Names that WITH has made, the innermost last.
    made: Vec<String>,
    /// How many of these do not count where it is now.
    passed: usize,
    /// Whether it reads columns.
    pub(super) reads: bool,
    /// How the rows are held that it reads.
    holds: Holds,
}

/// What becomes of rows that a query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// They are free for others to change.
    Nothing,
    /// They are locked until the transaction ends.
    Locks,
}

/// Most names that WITH may have made at one place: each table is looked for among them.
const MOST_MADE: usize = 256;

/// A name of at most two parts; what is reserved and not in backticks is none.
pub(super) fn name_of(name: &ObjectName) -> Result<Name, String> {
    let identifier = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(identifier) => identifier_of(identifier),
        ObjectNamePart::Function(_) => Err("a name that is computed".to_owned()),
    };
    match name.0.as_slice() {
        [name] => Ok(Name { database: None, name: identifier(name)? }),
        [database, name] => Ok(Name { database: Some(identifier(database)?), name: identifier(name)? }),
        _ => Err(format!("the name `{name}` has more than two parts")),
    }
}

fn identifier_of(identifier: &Ident) -> Result<String, String> {
    let Ident { value, quote_style, span: _ } = identifier;
    match quote_style {
        Some('`') => Ok(value.clone()),
        None if is_reserved(value) || value.starts_with('@') => {
            Err(format!("the word `{value}` stands where a name should"))
        }
        None => Ok(value.clone()),
        Some(_) => Err(format!("a name in other quotes than backticks: {value}")),
    }
}

impl Walk {
    pub(super) fn of(kind: StatementKind) -> Self {
        Self { reading: Reading::of(kind), made: Vec::new(), passed: 0, reads: false, holds: Holds::Nothing }
    }

    /// Reads a query or a change of rows.
    pub(super) fn statement(statement: &Statement) -> Reading {
        let mut walk = Self::of(StatementKind::Select);
        match statement {
            Statement::Query(query) => {
                walk.reading.has_limit = is_limited(query.limit_clause.as_ref());
                walk.query(query);
            }
            Statement::Insert(insert) => walk.insert(insert),
            Statement::Update(update) => walk.update(update),
            Statement::Delete(delete) => walk.delete(delete),
            _ => walk.not_understood("a statement that is not read here"),
        }
        walk.reading
    }

    pub(super) fn not_understood(&mut self, why: impl Into<String>) {
        self.reading.not_understood(why);
    }

    /// `empty` says that a part has nothing in it that would have to be read.
    pub(super) fn only_if(&mut self, empty: bool, what: &str) {
        if !empty {
            self.not_understood(format!("{what} is not read here"));
        }
    }

    pub(super) fn table(&mut self, verb: Verb, name: &ObjectName) {
        match name_of(name) {
            Ok(name) => self.reading.add(verb, Reference::Table(name)),
            Err(why) => self.not_understood(why),
        }
    }

    fn alias(&mut self, alias: Option<&TableAlias>) {
        let Some(TableAlias { explicit: _, name, columns, at }) = alias else { return };
        self.only_if(
            at.is_none() && columns.iter().all(|column| column.data_type.is_none()),
            "such an alias",
        );
        if let Err(why) = identifier_of(name) {
            self.not_understood(why);
        }
    }

    pub(super) fn query(&mut self, query: &Query) {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let (before, held) = (self.made.len(), self.holds);
        if !locks.is_empty() {
            // A server may lock the rows of queries within it as well.
            self.holds = Holds::Locks;
        }
        if let Some(with) = with {
            self.with(with);
        }
        self.body(body);
        if let Some(order_by) = order_by {
            self.order(order_by);
        }
        match limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                self.only_if(limit_by.is_empty(), "LIMIT BY");
                limit
                    .iter()
                    .chain(offset.iter().map(|offset| &offset.value))
                    .for_each(|value| self.expr(value));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.expr(offset);
                self.expr(limit);
            }
        }
        let plain = fetch.is_none() && for_clause.is_none() && settings.is_none() && format_clause.is_none();
        self.only_if(plain && pipe_operators.is_empty(), "such an end of a query");
        self.only_if(locks.iter().all(|lock| lock.of.is_none()), "FOR UPDATE OF");
        self.made.truncate(before);
        self.holds = held;
    }

    fn with(&mut self, with: &With) {
        let With { with_token: _, recursive, cte_tables } = with;
        // MariaDB was seen to take names of a WITH around this one for tables within what this one makes.
        let passed = mem::replace(&mut self.passed, self.made.len());
        for table in cte_tables {
            self.only_if(table.from.is_none() && table.materialized.is_none(), "such a WITH");
            self.alias(Some(&table.alias));
            if self.made.len() >= MOST_MADE {
                return self.not_understood(format!("WITH of more than {MOST_MADE} names"));
            }
            // Only where it is recursive does its name mean itself within it.
            if *recursive {
                self.made.push(table.alias.name.value.clone());
                self.query(&table.query);
            } else {
                self.query(&table.query);
                self.made.push(table.alias.name.value.clone());
            }
        }
        self.passed = passed;
    }

    fn body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, op: _, set_quantifier: _, right } => {
                self.body(left);
                self.body(right);
            }
            SetExpr::Values(values) => {
                values.rows.iter().flat_map(|row| &row.content).for_each(|value| self.expr(value));
            }
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => {
                self.not_understood("such a part of a query");
            }
        }
    }

    fn select(&mut self, select: &Select) {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers: _,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let plain = optimizer_hints.is_empty()
            && top.is_none()
            && exclude.is_none()
            && into.is_none()
            && lateral_views.is_empty()
            && prewhere.is_none()
            && connect_by.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && qualify.is_none()
            && value_table_mode.is_none()
            && *flavor == SelectFlavor::Standard
            && !matches!(distinct, Some(Distinct::On(_)));
        self.only_if(plain, "such a SELECT");
        from.iter().for_each(|from| self.from(Verb::DataRead, from));
        self.items(projection);
        selection.iter().chain(having).for_each(|condition| self.expr(condition));
        match group_by {
            GroupByExpr::All(_) => self.not_understood("GROUP BY ALL"),
            GroupByExpr::Expressions(expressions, modifiers) => {
                self.only_if(
                    modifiers.iter().all(|one| *one == GroupByWithModifier::Rollup),
                    "such a GROUP BY",
                );
                expressions.iter().for_each(|expression| self.expr(expression));
            }
        }
        for window in named_window {
            match &window.1 {
                NamedWindowExpr::WindowSpec(spec) => self.window(spec),
                NamedWindowExpr::NamedWindow(_) => self.not_understood("such a window"),
            }
        }
    }

    pub(super) fn items(&mut self, items: &[SelectItem]) {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => self.expr(expr),
                SelectItem::ExprWithAlias { expr, alias } => {
                    self.expr(expr);
                    let is_word = alias.quote_style.is_none() && is_reserved(&alias.value);
                    self.only_if(!is_word, "a reserved word as an alias");
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    if let Err(why) = name_of(name) {
                        self.not_understood(why);
                    }
                    self.reads = true;
                    self.wildcard(options);
                }
                SelectItem::Wildcard(options) => {
                    self.reads = true;
                    self.wildcard(options);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _)
                | SelectItem::ExprWithAliases { .. } => {
                    self.not_understood("such a column");
                }
            }
        }
    }

    fn wildcard(&mut self, options: &WildcardAdditionalOptions) {
        let WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        let plain = opt_ilike.is_none()
            && opt_exclude.is_none()
            && opt_except.is_none()
            && opt_replace.is_none()
            && opt_rename.is_none()
            && opt_alias.is_none();
        self.only_if(plain, "such a `*`");
    }

    /// A list of tables; `verb` is done to each that has rows of its own.
    pub(super) fn from(&mut self, verb: Verb, from: &TableWithJoins) {
        self.factor(verb, &from.relation);
        self.reads |= !from.joins.is_empty();
        for Join { relation, global, join_operator } in &from.joins {
            self.only_if(!global, "GLOBAL JOIN");
            self.factor(verb, relation);
            match join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::Left(constraint)
                | JoinOperator::LeftOuter(constraint)
                | JoinOperator::Right(constraint)
                | JoinOperator::RightOuter(constraint)
                | JoinOperator::CrossJoin(constraint)
                | JoinOperator::StraightJoin(constraint) => match constraint {
                    JoinConstraint::On(condition) => self.expr(condition),
                    JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => {
                        self.reads = true
                    }
                },
                JoinOperator::FullOuter(_)
                | JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_)
                | JoinOperator::RightAnti(_)
                | JoinOperator::CrossApply
                | JoinOperator::OuterApply
                | JoinOperator::AsOf { .. }
                | JoinOperator::ArrayJoin
                | JoinOperator::LeftArrayJoin
                | JoinOperator::InnerArrayJoin => self.not_understood("such a join"),
            }
        }
    }

    fn factor(&mut self, verb: Verb, factor: &TableFactor) {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions: _,
                json_path,
                sample,
                index_hints: _,
            } => {
                let plain = args.is_none()
                    && with_hints.is_empty()
                    && version.is_none()
                    && !with_ordinality
                    && json_path.is_none()
                    && sample.is_none();
                self.only_if(plain, "such a table");
                self.alias(alias.as_ref());
                if !self.is_made(name) && !is_dual(name) {
                    self.table(verb, name);
                    if self.holds == Holds::Locks {
                        self.table(Verb::DataLock, name);
                    }
                }
            }
            TableFactor::Derived { lateral: _, subquery, alias, sample } => {
                self.only_if(sample.is_none(), "such a query in FROM");
                self.alias(alias.as_ref());
                self.query(subquery);
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.alias(alias.as_ref());
                self.from(verb, table_with_joins);
            }
            TableFactor::JsonTable { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => self.not_understood("such a table in FROM"),
        }
    }

    fn is_made(&self, name: &ObjectName) -> bool {
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => {
                self.made.iter().skip(self.passed).any(|made| *made == name.value)
            }
            _ => false,
        }
    }

    fn order(&mut self, order: &OrderBy) {
        self.only_if(order.interpolate.is_none(), "such an ORDER BY");
        match &order.kind {
            OrderByKind::All(_) => self.not_understood("ORDER BY ALL"),
            OrderByKind::Expressions(expressions) => self.orders(expressions),
        }
    }

    pub(super) fn orders(&mut self, expressions: &[OrderByExpr]) {
        for OrderByExpr { expr, options: _, with_fill } in expressions {
            self.only_if(with_fill.is_none(), "WITH FILL");
            self.expr(expr);
        }
    }

    pub(super) fn window(&mut self, window: &WindowSpec) {
        let WindowSpec { window_name: _, partition_by, order_by, window_frame } = window;
        partition_by.iter().for_each(|expr| self.expr(expr));
        self.orders(order_by);
        let bounds =
            window_frame.iter().flat_map(|frame| [Some(&frame.start_bound), frame.end_bound.as_ref()]);
        for bound in bounds.flatten() {
            match bound {
                WindowFrameBound::CurrentRow
                | WindowFrameBound::Preceding(None)
                | WindowFrameBound::Following(None) => {}
                WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) => {
                    self.expr(expr)
                }
            }
        }
    }
}

/// Whether it says how many rows at most: OFFSET alone does not.
fn is_limited(clause: Option<&LimitClause>) -> bool {
    match clause {
        None | Some(LimitClause::LimitOffset { limit: None, .. }) => false,
        Some(LimitClause::LimitOffset { limit: Some(_), .. } | LimitClause::OffsetCommaLimit { .. }) => true,
    }
}

/// `DUAL`, which is no table.
fn is_dual(name: &ObjectName) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => {
            name.quote_style.is_none() && name.value.eq_ignore_ascii_case("dual")
        }
        _ => false,
    }
}
