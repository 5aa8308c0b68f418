//! Expressions, and the functions that they call.
//!
//! Promise: as `walk.rs`: a node that is not walked by name makes the statement `unknown`.

use std::slice;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, WindowType,
};

use super::{
    Name, Reference,
    builtin::{HARMLESS, OVER_WINDOWS, READS_FILES},
    walk::Walk,
    words::is_reserved,
};
use crate::model::Verb;

/// Reserved words that are values of their own, where the parser sees a column.
const VALUES: [&str; 11] = [
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "localtime",
    "localtimestamp",
    "utc_date",
    "utc_time",
    "utc_timestamp",
];

impl Walk {
    pub(super) fn expr(&mut self, expr: &Expr) {
        match expr {
            // A column, a user's variable, or one of the server's.
            Expr::Identifier(name) => self.column(slice::from_ref(name)),
            Expr::CompoundIdentifier(names) => self.column(names),
            Expr::Value(_) | Expr::TypedString(_) => {}
            Expr::IsFalse(one)
            | Expr::IsNotFalse(one)
            | Expr::IsTrue(one)
            | Expr::IsNotTrue(one)
            | Expr::IsNull(one)
            | Expr::IsNotNull(one)
            | Expr::IsUnknown(one)
            | Expr::IsNotUnknown(one)
            | Expr::Nested(one)
            | Expr::UnaryOp { op: _, expr: one }
            | Expr::Extract { field: _, syntax: _, expr: one }
            | Expr::Ceil { expr: one, field: _ }
            | Expr::Floor { expr: one, field: _ }
            | Expr::Collate { expr: one, collation: _ }
            | Expr::Prefixed { prefix: _, value: one }
            | Expr::Cast { kind: _, expr: one, data_type: _, format: None } => self.expr(one),
            Expr::Convert {
                is_try: false,
                expr: one,
                data_type: _,
                charset: _,
                target_before_value: false,
                styles,
            } => {
                self.expr(one);
                styles.iter().for_each(|style| self.expr(style));
            }
            Expr::BinaryOp { .. }
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::Position { .. }
            | Expr::RLike { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Like { .. }
            | Expr::Between { .. }
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_)
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Case { .. }
            | Expr::MemberOf(_) => self.compound(expr),
            Expr::Interval(interval) => self.expr(&interval.value),
            Expr::MatchAgainst { columns: _, match_value: _, opt_search_modifier: _ } => self.reads = true,
            Expr::Function(function) => self.function(function),
            Expr::CompoundFieldAccess { .. }
            | Expr::JsonAccess { .. }
            | Expr::IsJson { .. }
            | Expr::IsNormalized { .. }
            | Expr::InUnnest { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. }
            | Expr::Convert { .. }
            | Expr::Cast { .. }
            | Expr::AtTimeZone { .. }
            | Expr::Overlay { .. }
            | Expr::GroupingSets(_)
            | Expr::Cube(_)
            | Expr::Rollup(_)
            | Expr::Struct { .. }
            | Expr::Named { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::Array(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..)
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Lambda(_) => self.not_understood("such an expression"),
        }
    }

    /// A name where a value should be. Servers know words that the parser does not, and go on behind them: in SELECT SQL_CACHE *
    /// FROM t, it multiplies by a column FROM.
    fn column(&mut self, names: &[Ident]) {
        let is_word = |name: &Ident| {
            name.quote_style.is_none()
                && is_reserved(&name.value)
                && !VALUES.iter().any(|one| one.eq_ignore_ascii_case(&name.value))
        };
        self.only_if(!names.iter().any(is_word), "a reserved word as a column");
        self.reads = true;
    }

    /// Expressions of several parts.
    fn compound(&mut self, expr: &Expr) {
        match expr {
            Expr::MemberOf(member) => {
                self.expr(&member.value);
                self.expr(&member.array);
            }
            Expr::BinaryOp { left, op: _, right }
            | Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right)
            | Expr::Position { expr: left, r#in: right }
            | Expr::RLike { negated: _, expr: left, pattern: right, regexp: _ } => {
                self.expr(left);
                self.expr(right);
            }
            Expr::AnyOp { left, compare_op: _, right, is_some: _ }
            | Expr::AllOp { left, compare_op: _, right } => {
                self.expr(left);
                self.expr(right);
            }
            Expr::Like { negated: _, any: false, expr, pattern, escape_char } => {
                [Some(expr), Some(pattern), escape_char.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|one| self.expr(one));
            }
            Expr::Between { expr, negated: _, low, high } => {
                [expr, low, high].into_iter().for_each(|one| self.expr(one))
            }
            Expr::InList { expr, list, negated: _ } => {
                self.expr(expr);
                list.iter().for_each(|one| self.expr(one));
            }
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.expr(expr);
                self.query(subquery);
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => self.query(subquery),
            Expr::Tuple(list) => list.iter().for_each(|one| self.expr(one)),
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expr(expr);
                substring_from.iter().chain(substring_for).for_each(|one| self.expr(one));
            }
            Expr::Trim { trim_where: _, trim_what, expr, trim_characters } => {
                self.expr(expr);
                trim_what.iter().for_each(|one| self.expr(one));
                trim_characters.iter().flatten().for_each(|one| self.expr(one));
            }
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                operand.iter().chain(else_result).for_each(|one| self.expr(one));
                for when in conditions {
                    self.expr(&when.condition);
                    self.expr(&when.result);
                }
            }
            _ => self.not_understood("such an expression"),
        }
    }

    fn function(&mut self, function: &Function) {
        let Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } =
            function;
        let plain = !uses_odbc_syntax
            && matches!(parameters, FunctionArguments::None)
            && within_group.is_empty()
            && filter.is_none()
            && null_treatment.is_none();
        self.only_if(plain, "such a call");
        self.called(name, over.as_ref());
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => self.query(query),
            FunctionArguments::List(list) => {
                for argument in &list.args {
                    match argument {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => self.reads = true,
                        _ => self.not_understood("such an argument"),
                    }
                }
                for clause in &list.clauses {
                    match clause {
                        FunctionArgumentClause::OrderBy(order) => self.orders(order),
                        FunctionArgumentClause::Limit(expr) => self.expr(expr),
                        FunctionArgumentClause::Separator(_) => {}
                        _ => self.not_understood("such an argument"),
                    }
                }
            }
        }
        match over {
            None | Some(WindowType::NamedWindow(_)) => {}
            Some(WindowType::WindowSpec(spec)) => self.window(spec),
        }
    }

    fn called(&mut self, name: &ObjectName, over: Option<&WindowType>) {
        let parts: Vec<&Ident> = name.0.iter().filter_map(ObjectNamePart::as_ident).collect();
        let (database, name) = match parts.as_slice() {
            [name] => (None, name),
            [database, name] => (Some(database.value.clone()), name),
            _ => return self.not_understood("a call of what has no name"),
        };
        let lower = name.value.to_ascii_lowercase();
        let is_on = |list: &[&str]| list.binary_search(&lower.as_str()).is_ok();
        if database.is_none() && is_on(READS_FILES) {
            return self.reading.add(Verb::ServerReach, Reference::Resource);
        }
        // In backticks it may be somebody's own, of whatever name.
        let is_built_in = database.is_none()
            && name.quote_style.is_none()
            && (is_on(HARMLESS) || over.is_some() && is_on(OVER_WINDOWS));
        if database.is_none() && name.quote_style.is_none() && is_reserved(&name.value) && !is_built_in {
            return self.not_understood("a reserved word as a function");
        }
        if !is_built_in {
            self.reading
                .add(Verb::FunctionCall, Reference::Function(Name { database, name: name.value.clone() }));
        }
    }
}
