//! Functions that are called by their number alone, as the clients' large-object libraries do.
//!
//! Numbers that mean the same on every server are known here, and nothing is asked about them: below 10 000 PostgreSQL
//! assigns them by hand and never again to something else. What any other means the catalogue says.

use super::{
    Answer, Question,
    builtin::{is_harmless, verb_of},
    facts::call,
};
use crate::model::{Object, StatementFacts, Target, Verb};

/// The functions of large objects: number, name, types of the parameters.
const LARGE_OBJECTS: [(u32, &str, &[u32]); 20] = [
    (715, "lo_create", &[OID]),
    (764, "lo_import", &[TEXT]),
    (765, "lo_export", &[OID, TEXT]),
    (767, "lo_import", &[TEXT, OID]),
    (952, "lo_open", &[OID, INT4]),
    (953, "lo_close", &[INT4]),
    (954, "loread", &[INT4, INT4]),
    (955, "lowrite", &[INT4, BYTEA]),
    (956, "lo_lseek", &[INT4, INT4, INT4]),
    (957, "lo_creat", &[INT4]),
    (958, "lo_tell", &[INT4]),
    (964, "lo_unlink", &[OID]),
    (1004, "lo_truncate", &[INT4, INT4]),
    (3170, "lo_lseek64", &[INT4, INT8, INT4]),
    (3171, "lo_tell64", &[INT4]),
    (3172, "lo_truncate64", &[INT4, INT8]),
    (3457, "lo_from_bytea", &[OID, BYTEA]),
    (3458, "lo_get", &[OID]),
    (3459, "lo_get", &[OID, INT8, INT4]),
    (3460, "lo_put", &[OID, INT8, BYTEA]),
];
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;

fn large_object(number: u32) -> Option<(&'static str, &'static [u32])> {
    LARGE_OBJECTS.iter().find(|(oid, ..)| *oid == number).map(|(_, name, parameters)| (*name, *parameters))
}

/// Whether it is a function that only computes, whose number is assigned by hand.
fn only_computes(number: u32) -> bool {
    number < 10_000 && is_harmless(&[number])
}

/// What must be looked up before [`called`] can tell what a call of the function with this number does. Empty for
/// those that are known here.
pub fn calling(number: u32) -> Question {
    let known = only_computes(number) || large_object(number).is_some();
    Question { numbers: (!known).then_some(number).into_iter().collect(), ..Question::default() }
}

/// What a call of the function with this number does in `database`, by the catalogue's answer to [`calling`].
pub fn called(number: u32, database: &str, answer: &Answer) -> StatementFacts {
    if only_computes(number) {
        return StatementFacts::single(Verb::DataRead, Target::Resource);
    }
    let Some((name, _)) = large_object(number) else {
        return match answer.numbers.get(&number) {
            Some(Some(function)) => call(&function.routine, answer),
            Some(None) => StatementFacts::unknown(format!("no function has the number {number}")),
            None => {
                StatementFacts::unknown(format!("the catalogue was not asked about the function {number}"))
            }
        };
    };
    let target = match verb_of(name) {
        Verb::FunctionCall => Target::Function(Object {
            database: database.to_owned(),
            schema: "pg_catalog".to_owned(),
            name: name.to_owned(),
            oid: Some(number),
        }),
        _ => Target::Resource,
    };
    StatementFacts::single(verb_of(name), target)
}

/// The types of the parameters of the function with this number, as far as they are known.
pub fn parameters(number: u32, answer: &Answer) -> &[u32] {
    match (large_object(number), answer.numbers.get(&number)) {
        (Some((_, parameters)), _) => parameters,
        (None, Some(Some(function))) => &function.parameters,
        (None, _) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Numbered, Routine};

    #[test]
    fn large_objects_are_named_and_the_servers_files_are_out_of_reach() {
        let verb = |number| called(number, "d", &Answer::default()).effects[0].verb;
        assert_eq!(verb(952), Verb::FunctionCall);
        assert_eq!(verb(764), Verb::ServerReach);
        assert_eq!(verb(765), Verb::ServerReach);
        // upper(text)
        assert_eq!(verb(871), Verb::DataRead);
        assert!([952, 764, 871].into_iter().all(|number| calling(number).is_empty()));
        assert_eq!(parameters(955, &Answer::default()), [INT4, BYTEA]);
    }

    #[test]
    fn any_other_is_what_the_catalogue_says() {
        let named = |schema: &str, name: &str, number: u32| {
            let object = Object {
                database: "d".to_owned(),
                schema: schema.to_owned(),
                name: name.to_owned(),
                oid: Some(number),
            };
            let routine = Routine { object, built_in: schema == "pg_catalog" };
            (number, Some(Numbered { routine, parameters: vec![INT4] }))
        };
        let answer = Answer {
            numbers: [
                named("pg_catalog", "table_to_xml", 2923),
                named("pg_catalog", "pg_sleep", 2626),
                named("pg_catalog", "set_config", 2078),
                named("public", "mine", 16_384),
                named("public", "dblink", 16_385),
                (16_386, None),
            ]
            .into(),
            ..Answer::default()
        };
        let told = |number| {
            assert_eq!(calling(number).numbers, [number].into());
            let facts = called(number, "d", &answer);
            let told = facts.effects.iter().map(|effect| match &effect.target {
                Target::Function(object) => {
                    format!("{} {}.{}", effect.verb.as_str(), object.schema, object.name)
                }
                _ => effect.verb.as_str().to_owned(),
            });
            told.collect::<Vec<_>>().join(", ")
        };
        for (number, expected) in [
            (2923, "unknown"),
            (2626, "function.call pg_catalog.pg_sleep"),
            (2078, "unknown"),
            (16_384, "function.call public.mine"),
            (16_385, "function.call public.dblink, server.reach"),
            (16_386, "unknown"),
            (16_387, "unknown"),
        ] {
            assert_eq!(told(number), expected, "{number}");
        }
        assert_eq!(parameters(16_384, &answer), [INT4]);
    }
}
