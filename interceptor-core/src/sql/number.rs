//! Functions that are called by their number alone, as the clients' large-object libraries do.
//!
//! Only numbers that mean the same on every server are known here: below 10 000 PostgreSQL assigns them by hand and
//! never again to something else. Any other is `unknown`; nothing is asked of the catalogue.

use super::builtin::{is_harmless, verb_of};
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

/// What a call of the function with this number does in `database`.
pub fn called(number: u32, database: &str) -> StatementFacts {
    if is_harmless(&[number]) && number < 10_000 {
        return StatementFacts::single(Verb::DataRead, Target::Resource);
    }
    let Some((name, _)) = large_object(number) else {
        return StatementFacts::unknown(format!("which function has the number {number} is not known"));
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
pub fn parameters(number: u32) -> &'static [u32] {
    large_object(number).map_or(&[], |(_, parameters)| parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_objects_are_named_and_the_servers_files_are_out_of_reach() {
        let verb = |number| called(number, "d").effects[0].verb;
        assert_eq!(verb(952), Verb::FunctionCall);
        assert_eq!(verb(764), Verb::ServerReach);
        assert_eq!(verb(765), Verb::ServerReach);
        // upper(text)
        assert_eq!(verb(871), Verb::DataRead);
        // table_to_xml, nothing, somebody's own
        for number in [2923, 0, 16_384] {
            assert_eq!(verb(number), Verb::Unknown);
        }
        assert_eq!(parameters(955), [INT4, BYTEA]);
    }
}
