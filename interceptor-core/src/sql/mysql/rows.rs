//! Changes of rows: INSERT, REPLACE, UPDATE and DELETE.
//!
//! Promise: as `walk.rs`: each field is walked by name or makes the statement `unknown`.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, FromTable, Insert, OnInsert, TableObject, Update,
};

use super::{Reference, walk::Walk};
use crate::model::{StatementKind, Verb};

impl Walk {
    pub(super) fn insert(&mut self, insert: &Insert) {
        self.reading.kind = StatementKind::Insert;
        let Insert {
            insert_token: _,
            optimizer_hints,
            or,
            ignore: _,
            into: _,
            table,
            table_alias,
            columns: _,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority: _,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        let plain = optimizer_hints.is_empty()
            && or.is_none()
            && table_alias.is_none()
            && !overwrite
            && partitioned.is_none()
            && after_columns.is_empty()
            && !has_table_keyword
            && output.is_none()
            && insert_alias.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && multi_table_insert_type.is_none()
            && multi_table_into_clauses.is_empty()
            && multi_table_when_clauses.is_empty()
            && multi_table_else_clause.is_none();
        self.only_if(plain, "such an INSERT");
        let TableObject::TableName(name) = table else {
            return self.not_understood("INSERT into what is no table");
        };
        self.table(Verb::DataInsert, name);
        if *replace_into {
            self.table(Verb::DataDelete, name);
        }
        if let Some(source) = source {
            self.query(source);
        }
        self.assignments(assignments);
        match on {
            None => {}
            Some(OnInsert::DuplicateKeyUpdate(assignments)) => {
                self.table(Verb::DataUpdate, name);
                self.table(Verb::DataRead, name);
                self.assignments(assignments);
            }
            Some(_) => self.not_understood("such an INSERT"),
        }
        if let Some(returning) = returning {
            self.table(Verb::DataRead, name);
            self.items(returning);
        }
    }

    fn assignments(&mut self, assignments: &[Assignment]) {
        for Assignment { target, value } in assignments {
            self.only_if(matches!(target, AssignmentTarget::ColumnName(_)), "such an assignment");
            self.expr(value);
        }
    }

    pub(super) fn update(&mut self, update: &Update) {
        self.reading.kind = StatementKind::Update;
        let Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
        } = update;
        let plain = optimizer_hints.is_empty()
            && from.is_none()
            && returning.is_none()
            && output.is_none()
            && or.is_none();
        self.only_if(plain, "such an UPDATE");
        self.reading.has_where = selection.is_some();
        // Which of several it changes hangs on whose columns they are.
        self.from(Verb::DataUpdate, table);
        self.assignments(assignments);
        self.orders(order_by);
        selection.iter().chain(limit).for_each(|expr| self.expr(expr));
        self.reads_what(Verb::DataUpdate);
    }

    pub(super) fn delete(&mut self, delete: &Delete) {
        self.reading.kind = StatementKind::Delete;
        let Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
        } = delete;
        self.only_if(optimizer_hints.is_empty() && output.is_none(), "such a DELETE");
        self.reading.has_where = selection.is_some();
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
        // Those it deletes from may be named by aliases: it is as if it did from each.
        from.iter().chain(using.iter().flatten()).for_each(|table| self.from(Verb::DataDelete, table));
        // A server asks for the right to read as soon as they are named apart.
        self.reads |= !tables.is_empty() || from.len() > 1 || using.is_some();
        if let Some(returning) = returning {
            self.reads = true;
            self.items(returning);
        }
        self.orders(order_by);
        selection.iter().chain(limit).for_each(|expr| self.expr(expr));
        self.reads_what(Verb::DataDelete);
    }

    /// A change whose conditions or values name columns reads what it changes.
    fn reads_what(&mut self, changed: Verb) {
        if !self.reads {
            return;
        }
        let tables = self.reading.effects.iter().filter(|(verb, _)| *verb == changed);
        let tables: Vec<Reference> = tables.map(|(_, reference)| reference.clone()).collect();
        tables.into_iter().for_each(|table| self.reading.add(Verb::DataRead, table));
    }
}
