//! Built-in functions that only compute: they reach nothing, run nobody's code, and change nothing.

/// Their names, sorted. Those that sleep, lock, read files or run something are not among them.
pub(super) const HARMLESS: [&str; 251] = [
    "abs", "acos", "adddate", "addtime", "aes_decrypt", "aes_encrypt", "any_value", "ascii", "asin", "atan",
    "atan2", "avg", "bin", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "cast", "ceil",
    "ceiling", "char", "char_length", "character_length", "charset", "chr", "coalesce", "coercibility",
    "collation", "compress", "concat", "concat_ws", "connection_id", "conv", "convert", "convert_tz", "cos",
    "cot", "count", "crc32", "cume_dist", "curdate", "current_date", "current_role", "current_time",
    "current_timestamp", "current_user", "curtime", "database", "date", "date_add", "date_format", "date_sub",
    "datediff", "day", "dayname", "dayofmonth", "dayofweek", "dayofyear", "degrees", "dense_rank", "elt",
    "exp", "export_set", "extract", "field", "find_in_set", "first_value", "floor", "format", "found_rows",
    "from_base64", "from_days", "from_unixtime", "greatest", "group_concat", "grouping", "hex", "hour", "if",
    "ifnull", "inet6_aton", "inet6_ntoa", "inet_aton", "inet_ntoa", "insert", "instr", "is_ipv4", "is_ipv6",
    "is_uuid", "isnull", "json_array", "json_array_append", "json_array_insert", "json_arrayagg",
    "json_compact", "json_contains", "json_contains_path", "json_depth", "json_detailed", "json_exists",
    "json_extract", "json_insert", "json_keys", "json_length", "json_loose", "json_merge", "json_merge_patch",
    "json_merge_preserve", "json_object", "json_objectagg", "json_overlaps", "json_pretty", "json_query",
    "json_quote", "json_remove", "json_replace", "json_search", "json_set", "json_table", "json_type",
    "json_unquote", "json_valid", "json_value", "lag", "last_day", "last_insert_id", "last_value", "lcase",
    "lead", "least", "left", "length", "ln", "localtime", "localtimestamp", "locate", "log", "log10", "log2",
    "lower", "lpad", "ltrim", "make_set", "makedate", "maketime", "max", "md5", "microsecond", "mid", "min",
    "minute", "mod", "month", "monthname", "name_const", "now", "nth_value", "ntile", "nullif", "oct",
    "octet_length", "ord", "percent_rank", "period_add", "period_diff", "pi", "position", "pow", "power",
    "quarter", "quote", "radians", "rand", "rank", "regexp_instr", "regexp_like", "regexp_replace",
    "regexp_substr", "repeat", "replace", "reverse", "right", "round", "row", "row_count", "row_number",
    "rpad", "rtrim", "schema", "sec_to_time", "second", "session_user", "sha", "sha1", "sha2", "sign", "sin",
    "soundex", "space", "sqrt", "std", "stddev", "stddev_pop", "stddev_samp", "str_to_date", "strcmp",
    "subdate", "substr", "substring", "substring_index", "subtime", "sum", "sysdate", "system_user", "tan",
    "time", "time_format", "time_to_sec", "timediff", "timestamp", "timestampadd", "timestampdiff",
    "to_base64", "to_days", "to_seconds", "trim", "truncate", "ucase", "uncompress", "uncompressed_length",
    "unhex", "unix_timestamp", "upper", "user", "utc_date", "utc_time", "utc_timestamp", "uuid", "uuid_short",
    "values", "var_pop", "var_samp", "variance", "version", "week", "weekday", "weekofyear", "weight_string",
    "year", "yearweek",
];

/// Functions that read a file of the server's.
pub(super) const READS_FILES: [&str; 1] = ["load_file"];
