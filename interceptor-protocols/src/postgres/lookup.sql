/* interceptor: what the names in the next statement mean */
WITH RECURSIVE
asked(n, t) AS (
  SELECT o.n, o.t FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS o(t, n)),
root(n, oid) AS (
  SELECT a.n, pg_catalog.to_regclass(a.t)::pg_catalog.oid FROM asked a),
reads(n, oid) AS (
  SELECT r.n, r.oid FROM root r WHERE r.oid IS NOT NULL
  UNION
  SELECT r.n, m.found[1]::pg_catalog.oid
  FROM reads r
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
   AND c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
  JOIN pg_catalog.pg_rewrite w ON w.ev_class OPERATOR(pg_catalog.=) c.oid
  CROSS JOIN LATERAL pg_catalog.regexp_matches(w.ev_action::pg_catalog.text,
    ':relid ([1-9][0-9]*)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)),
called(n, s, t) AS (
  SELECT o.n, o.s, o.t FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.text[]),
    pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS o(s, t, n))
SELECT 's'::pg_catalog.text, '0'::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text,
  current_user::pg_catalog.text, pg_catalog.current_setting('client_encoding'::pg_catalog.text),
  pg_catalog.current_setting('standard_conforming_strings'::pg_catalog.text),
  pg_catalog.current_setting('transaction_isolation'::pg_catalog.text)
UNION ALL
SELECT 'p'::pg_catalog.text, o.n::pg_catalog.text, o.t::pg_catalog.text, ''::pg_catalog.text,
  ''::pg_catalog.text, ''::pg_catalog.text, ''::pg_catalog.text
FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS o(t, n)
UNION ALL
SELECT 'r'::pg_catalog.text, r.n::pg_catalog.text, s.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.oid::pg_catalog.text, c.relkind::pg_catalog.text,
  (EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid
    AND w.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog."char"))::pg_catalog.text
FROM root r
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT 'v'::pg_catalog.text, r.n::pg_catalog.text, s.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.oid::pg_catalog.text, c.relkind::pg_catalog.text, ''::pg_catalog.text
FROM reads r
JOIN root o ON o.n OPERATOR(pg_catalog.=) r.n AND o.oid OPERATOR(pg_catalog.<>) r.oid
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT 'f'::pg_catalog.text, f.n::pg_catalog.text, s.nspname::pg_catalog.text, p.proname::pg_catalog.text,
  p.oid::pg_catalog.text,
  (s.nspname OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.name
    AND p.oid OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid)::pg_catalog.text, ''::pg_catalog.text
FROM called f
JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) f.t::pg_catalog.name
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE (f.s IS NULL AND s.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true)))
   OR s.nspname OPERATOR(pg_catalog.=) f.s::pg_catalog.name
   OR (f.s OPERATOR(pg_catalog.=) 'pg_temp'::pg_catalog.text
    AND s.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
LIMIT 8192
