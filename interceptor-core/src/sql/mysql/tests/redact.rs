use super::*;

#[test]
fn what_holds_no_secret_stays_as_it_is() {
    for text in [
        "SELECT 'it\\'s', \"b\"",
        "INSERT INTO t VALUES (1, 'x') -- why",
        "SET NAMES utf8mb4",
        "SET @@sql_mode = ''",
    ] {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn secrets_are_taken_out() {
    for (text, expected) in [
        ("CREATE USER a IDENTIFIED BY \"pw'x\"", "CREATE USER a IDENTIFIED BY '***'"),
        ("SET PASSWORD FOR 'a' = PASSWORD('pw')", "SET PASSWORD FOR '***' = PASSWORD('***')"),
        ("SELECT 'password=x'", "SELECT '***'"),
        ("SELECT 'mysql://a:b@c', 'd'", "SELECT '***', 'd'"),
        ("SELECT 1 /* mysql://a:b@c */", "SELECT 1"),
        ("GRANT ALL ON d.* TO 'a'@'h'", "GRANT ALL ON d.* TO '***'@'***'"),
        ("SELECT 'open", "[12 bytes that cannot be read]"),
        ("SELECT 12 /*! 'x' */", "[20 bytes that cannot be read]"),
    ] {
        assert_eq!(redact(text), expected);
    }
}

/// Texts that would give `hunter2`, or its hash, away. A server carries each of them out, or its newer kin does.
const GIVING_AWAY: &[&str] = &[
    "SELECT 1; CREATE USER a IDENTIFIED BY 'hunter2'",
    "CREATE USER a IDENTIFIED BY 'b', c IDENTIFIED BY 'hunter2'",
    "ALTER USER a IDENTIFIED VIA mysql_native_password USING 'hunter2'",
    "ALTER USER a IDENTIFIED WITH caching_sha2_password AS 'hunter2' REPLACE 'hunter2'",
    "ALTER USER a IDENTIFIED WITH caching_sha2_password AS 0x68756e74657232",
    "ALTER USER a IDENTIFIED WITH caching_sha2_password AS X'68756e74657232'",
    "GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD 'hunter2'",
    "SET @x = 1, PASSWORD = 'hunter2'",
    "SET GLOBAL wsrep_sst_auth = 'root:hunter2'",
    "BEGIN NOT ATOMIC SET PASSWORD = PASSWORD('hunter2'); END",
    "BEGIN NOT ATOMIC CREATE USER a IDENTIFIED BY 'hunter2'; END",
    "CREATE PROCEDURE p() CREATE USER a IDENTIFIED BY 'hunter2'",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO ALTER USER a IDENTIFIED BY 'hunter2'",
    "EXPLAIN SELECT PASSWORD('hunter2')",
    "ANALYZE SELECT * FROM t WHERE a = old_password('hunter2')",
    "CHANGE MASTER TO MASTER_HOST = 'h', MASTER_PASSWORD = 'hunter2'",
    "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = 'hunter2'",
    "START SLAVE USER = 'a' PASSWORD = 'hunter2'",
    "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'a', PASSWORD 'hunter2')",
    "CREATE TABLE t (a INT) ENGINE=FEDERATED CONNECTION='a/hunter2'",
    "CREATE TABLE t (a INT) ENGINE=SPIDER COMMENT='host \"h\", password \"hunter2\"'",
    "CLONE INSTANCE FROM 'a'@'h':3306 IDENTIFIED BY 'hunter2'",
    "PREPARE s FROM 'CREATE USER a IDENT'  'IFIED BY \"hunter2\"'",
    "PREPARE s FROM 'hunter2'",
    "EXECUTE IMMEDIATE 'CREATE USER a IDENTIFIED BY ?' USING 'hunter2'",
    "EXECUTE IMMEDIATE CONCAT('CREATE USER a IDENT', 'IFIED BY ''hunter2''')",
    "SET @s = 'hunter2'",
    "SELECT @s := 'hunter2'",
    "SELECT 'hunter2' INTO @s",
    "INSERT INTO t VALUES ('CREATE USER a IDENT', N'IFIED BY ''hunter2''')",
    "INSERT INTO t VALUES ('IDENT', 'IFI\\ED BY hunter2')",
    "INSERT INTO t VALUES (x'4944454E544946494544', 'hunter2')",
    "INSERT INTO t VALUES (0x4944454E544946494544, 'hunter2')",
    "INSERT INTO t VALUES (b'0100100101000100010001010100111001010100010010010100011001001001', 0x4544, 'hunter2')",
    "INSERT INTO users (name, `password`) VALUES ('a', 'hunter2')",
    "UPDATE users SET user_password = 'hunter2' WHERE id = 1",
    "SELECT aes_decrypt(a, 'hunter2') FROM t",
    "/*!50000 CREATE USER a IDENTIFIED BY 'hunter2' */",
    "CREATE USER a IDENTIFIED BY 'hunter2",
    "SELECT 'a' -- password is 'hunter2'",
    "SET @@GLOBAL.wsrep_sst_auth = 'root:hunter2'",
    "SET GLOBAL `wsrep_sst_auth` = 'root:hunter2'",
    "SELECT `AES_DECRYPT`(a, 'hunter2') FROM t",
    "SELECT keyring_key_store('k', 'AES', 'hunter2')",
    "SELECT asymmetric_decrypt('RSA', a, 'hunter2')",
    "SELECT * FROM users WHERE a = MD5('hunter2')",
    "SELECT * FROM users WHERE pass = 'hunter2'",
    "SELECT * FROM users WHERE user_pwd = 'hunter2'",
    "UPDATE user SET authentication_string = 'hunter2'",
    "INSERT INTO `mysql` . servers VALUES ('s', 'h', 'd', 'u', 'hunter2')",
    "ALTER USER u 2 FACTOR FINISH REGISTRATION SET CHALLENGE_RESPONSE AS 'hunter2'",
    // With a `sql_mode` of NO_BACKSLASH_ESCAPES, the first string ends at the backslash.
    "SET PASSWORD FOR 'a\\' = 'hunter2', @b = 'c' 'd'",
    // In a character set such as gbk, the backtick is the half of a letter.
    "CREATE USER \u{fffd}` IDENTIFIED BY 'hunter2', \u{fffd}` IDENTIFIED BY 'b'",
    // What cannot be cut into tokens.
    "CREATE USER a IDENTIFIED BY {hunter2}",
];

#[test]
fn no_password_stays_in_a_text() {
    for text in GIVING_AWAY {
        for shown in [redact(text), without_literals(text)] {
            assert!(
                !shown.contains("hunter2") && !shown.to_lowercase().contains("68756e"),
                "{text}: {shown}"
            );
        }
    }
}

#[test]
fn literals_are_taken_out() {
    for (text, expected) in [
        ("SELECT '\\'', 'secret', \"more\" -- 'x'\n, 5", "SELECT ?, ?, ? , ?"),
        ("SELECT a # 'x'\n FROM `b 1` WHERE c = x'41'", "SELECT a FROM `b 1` WHERE c = ?"),
        ("SELECT 12 /*! 'x' */", "[20 bytes that cannot be read]"),
        ("CREATE USER 'a'@\"h\", b@`c`", "CREATE USER ?@?, b@`c`"),
        ("INSERT INTO t VALUES ('it\\'s', 'that\\'s', '\\\\')", "INSERT INTO t VALUES (?, ?, ?)"),
        // To a session with NO_BACKSLASH_ESCAPES, the second string is one.
        ("SELECT 'a\\', 'b' -- '", "[21 bytes that cannot be read]"),
    ] {
        assert_eq!(without_literals(text), expected);
    }
}
