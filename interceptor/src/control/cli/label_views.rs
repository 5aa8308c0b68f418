//! Views by which a server shows documents without what stands at hidden places in them.
//!
//! Promises: a view shows rather too little of a document than too much; it is there for relations whose rows are not
//! secured alone, since it reads as its owner; it fails over no document, since the server's words about that would tell of it.

use std::collections::BTreeMap;

use interceptor_core::{
    mask::Path,
    survey::{Document, RelationKind},
    text::printable,
};

use super::{
    label_grants::{name, text},
    output::Failure,
};
use crate::control::api::{ColumnStatus, Sight};

/// What a name may have at most at the server, in bytes.
const LONGEST: usize = 63;
const PREFIX: &str = "interceptor_";

/// A view of one relation.
pub(super) struct View<'a> {
    schema: &'a str,
    relation: &'a str,
    outputs: Vec<String>,
}

/// The schema of a role's views.
pub(super) fn schema(role: &str) -> Result<String, Failure> {
    let schema = format!("{PREFIX}{role}");
    if schema.len() > LONGEST {
        return Err(Failure::no(format!(
            "the views of {role} would be in a schema called {schema}, which is longer than {LONGEST} bytes: take a \
             role with a shorter name"
        )));
    }
    Ok(schema)
}

/// The view of a relation that has documents with hidden places, and what is to be said of it.
pub(super) fn view<'a>(columns: &[&'a ColumnStatus]) -> (String, Option<View<'a>>) {
    let Some(first) = columns.first() else { return (String::new(), None) };
    let in_parts = |column: &&&ColumnStatus| matches!(column.sight, Sight::Without(_));
    if !columns.iter().any(|column| in_parts(&column)) {
        return (String::new(), None);
    }
    if first.secured.is_some() {
        let why = "-- No view of its documents: it would read as its owner, whose rows are others.\n";
        return (why.to_owned(), None);
    }
    if first.kind == RelationKind::View {
        let why = "-- No view of its documents: take them from what it shows.\n";
        return (why.to_owned(), None);
    }
    let (mut out, mut outputs, mut cut) = (String::new(), Vec::new(), false);
    for column in columns {
        let called = name(&column.column);
        match (&column.sight, document(column)) {
            (Sight::All, _) => outputs.push(format!("t.{called}")),
            (Sight::Without(_), Ok(document)) => {
                cut = true;
                outputs.push(format!("{document} AS {called}"));
            }
            (Sight::Without(_), Err(why)) => {
                out += &format!("-- No view of a document in it, since {why}.\n");
            }
            (Sight::Nothing, _) => {}
        }
    }
    (out, cut.then_some(View { schema: &first.schema, relation: &first.relation, outputs }))
}

/// The document without what is hidden, or why the server cannot give that.
fn document(column: &ColumnStatus) -> Result<String, String> {
    let Sight::Without(places) = &column.sight else { return Err("no place in it is hidden".to_owned()) };
    let called = format!("t.{}", name(&column.column));
    let whole = match column.document {
        Some(Document::Jsonb) => called.clone(),
        Some(Document::Json) => format!("{called}::pg_catalog.jsonb"),
        None => return Err("it is neither json nor jsonb".to_owned()),
    };
    let mut cuts = String::new();
    for place in places {
        let path = Path::parse(place);
        let names = path.as_ref().and_then(Path::names);
        let names = names
            .ok_or_else(|| format!("the server has no means to take {} out of one", printable(place)))?;
        cuts += &format!("\n      OPERATOR(pg_catalog.#-) {}", cut(&whole, &names));
    }
    if cuts.is_empty() {
        return Err("no place in it is known".to_owned());
    }
    let cut = format!(
        "CASE pg_catalog.jsonb_typeof({whole}) WHEN 'object' THEN {whole}{cuts}\n      WHEN 'array' THEN NULL ELSE {whole} END"
    );
    Ok(match column.document {
        // Not each of these texts means something as jsonb.
        Some(Document::Json) => {
            format!(
                "CASE WHEN pg_catalog.strpos({called}::pg_catalog.text, {}) > 0 THEN NULL ELSE {cut} END",
                text("\\u")
            )
        }
        Some(Document::Jsonb) | None => cut,
    })
}

/// What is taken out for one place: an array on the way to it stands for what it has in it, so that all of it goes.
fn cut(document: &str, names: &[&str]) -> String {
    let array = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| text(name)).collect();
        format!("ARRAY[{}]::pg_catalog.text[]", names.join(", "))
    };
    let arrays = (1..names.len()).filter_map(|count| names.get(..count)).map(|above| {
        let above = array(above);
        format!(
            "WHEN pg_catalog.jsonb_typeof({document} OPERATOR(pg_catalog.#>) {above}) OPERATOR(pg_catalog.=) 'array' THEN {above} "
        )
    });
    let arrays: String = arrays.collect();
    if arrays.is_empty() { array(names) } else { format!("(CASE {arrays}ELSE {} END)", array(names)) }
}

/// The views, in place of those that were there.
pub(super) fn sql(views: &[View<'_>], schema: &str, who: &str) -> String {
    let mut out = format!(
        "SELECT pg_catalog.format('DROP VIEW %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n\n  \
         ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relkind = 'v' \\gexec\n",
        text(schema)
    );
    if views.is_empty() {
        return out;
    }
    let schema = name(schema);
    out += &format!("CREATE SCHEMA IF NOT EXISTS {schema};\nGRANT USAGE ON SCHEMA {schema} TO {who};\n");
    let mut of: BTreeMap<&str, u32> = BTreeMap::new();
    for view in views {
        *of.entry(view.relation).or_default() += 1;
    }
    for View { schema: from, relation, outputs } in views {
        let called = match of.get(relation) {
            Some(1) => name(relation),
            _ => name(&format!("{from}.{relation}")),
        };
        let (called, outputs) = (format!("{schema}.{called}"), outputs.join(",\n    "));
        out += &format!(
            "CREATE VIEW {called} WITH (security_barrier = true) AS\n  SELECT {outputs}\n  FROM {}.{} AS t;\n\
             REVOKE ALL ON TABLE {called} FROM PUBLIC, {who};\nGRANT SELECT ON TABLE {called} TO {who};\n",
            name(from),
            name(relation)
        );
    }
    out
}
