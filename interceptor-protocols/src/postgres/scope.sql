SELECT 's'::pg_catalog.text, (SELECT d.oid::pg_catalog.text FROM pg_catalog.pg_database d
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()), pg_catalog.current_database()::pg_catalog.text,
  current_user::pg_catalog.text,
  pg_catalog.current_setting('client_encoding'::pg_catalog.text),
    pg_catalog.current_setting('standard_conforming_strings'::pg_catalog.text),
  pg_catalog.current_setting('transaction_isolation'::pg_catalog.text)
UNION ALL
SELECT 'w'::pg_catalog.text, ''::pg_catalog.text,
  pg_catalog.to_char(pg_catalog.timezone('UTC'::pg_catalog.text, pg_catalog.pg_postmaster_start_time()),
    'YYYYMMDDHH24MISSUS'::pg_catalog.text),
  pg_catalog.current_setting('search_path'::pg_catalog.text),
  pg_catalog.to_regrole(pg_catalog.quote_ident(current_user::pg_catalog.text))::pg_catalog.oid::pg_catalog.text,
  pg_catalog.pg_my_temp_schema()::pg_catalog.text, ''::pg_catalog.text
UNION ALL
SELECT 'p'::pg_catalog.text, o.n::pg_catalog.text, o.t::pg_catalog.text, ''::pg_catalog.text, ''::pg_catalog.text,
  ''::pg_catalog.text, ''::pg_catalog.text
FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS o(t, n)
