//! What the texts of a table of expected verdicts do, with the table's catalogue in place of a server's.

use super::expect::Catalogue;
use crate::{
    model::{Object, StatementFacts},
    sql::{self, Dialect, mysql},
};

impl Catalogue {
    /// The facts of each statement of a text.
    pub fn facts(&self, dialect: Dialect, text: &str) -> Vec<StatementFacts> {
        match dialect {
            Dialect::Postgres => match sql::analyze(text) {
                Ok(statements) => sql::batch_facts(&statements, &self.answer(&sql::question(&statements))),
                Err(unknown) => vec![StatementFacts::unknown(unknown.0)],
            },
            Dialect::MySql => {
                let place = mysql::Place { database: Some(&self.database), names: mysql::Names::Exact };
                vec![mysql::facts(&mysql::read(text), place, |object| Some(self.kind(object)))]
            }
        }
    }

    fn kind(&self, object: &Object) -> mysql::Kind {
        let is_view = self.views.keys().any(|view| {
            let named = self.object(Dialect::MySql, view);
            (&named.database, &named.name) == (&object.database, &object.name)
        });
        if is_view { mysql::Kind::View } else { mysql::Kind::Table }
    }

    /// The object of a name of the table: `schema.name`, or `database.name` where there are no schemas.
    pub(super) fn object(&self, dialect: Dialect, qualified: &str) -> Object {
        let (place, name) = match qualified.split_once('.') {
            Some((place, name)) => (Some(place), name),
            None => (None, qualified),
        };
        let (database, schema) = match dialect {
            Dialect::Postgres => (self.database.as_str(), place.unwrap_or("public")),
            Dialect::MySql => (place.unwrap_or(&self.database), ""),
        };
        Object { database: database.to_owned(), schema: schema.to_owned(), name: name.to_owned(), oid: None }
    }
}
