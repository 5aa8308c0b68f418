/* interceptor: the table that the next statement changes, for images of its rows */
SELECT 's'::pg_catalog.text, pg_catalog.current_setting('datestyle'::pg_catalog.text),
  pg_catalog.current_setting('intervalstyle'::pg_catalog.text),
  pg_catalog.current_setting('extra_float_digits'::pg_catalog.text), pg_catalog.txid_current()::pg_catalog.text,
  (SELECT pg_catalog.string_agg(p.proname::pg_catalog.text, ', '::pg_catalog.text) FROM pg_catalog.pg_proc p
    WHERE p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])
    AND p.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char")
UNION ALL
SELECT 't'::pg_catalog.text, c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text,
  s.nspname::pg_catalog.text, c.relname::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
UNION ALL
SELECT 'c'::pg_catalog.text, a.attnum::pg_catalog.text, a.attname::pg_catalog.text, a.atttypid::pg_catalog.text,
  CASE WHEN a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog."char" THEN 'generated'::pg_catalog.text
    WHEN a.attidentity OPERATOR(pg_catalog.=) 'a'::pg_catalog."char" THEN 'identity'::pg_catalog.text
    ELSE ''::pg_catalog.text END,
  CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) a.attrelid
    AND i.indisprimary AND a.attnum OPERATOR(pg_catalog.=) ANY (i.indkey::pg_catalog.int2[]))
    THEN 'key'::pg_catalog.text ELSE ''::pg_catalog.text END
FROM pg_catalog.pg_attribute a
WHERE a.attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid
  AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT a.attisdropped
