/* interceptor: which columns there are */
SELECT s.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.oid::pg_catalog.text,
  CASE WHEN c.relispartition THEN 'partition'::pg_catalog.text ELSE c.relkind::pg_catalog.text END,
  pg_catalog.has_any_column_privilege('public'::pg_catalog.name, c.oid, 'SELECT'::pg_catalog.text)::pg_catalog.text,
  a.attnum::pg_catalog.text, a.attname::pg_catalog.text, pg_catalog.has_column_privilege(c.oid, a.attnum,
    'SELECT'::pg_catalog.text)::pg_catalog.text,
  CASE WHEN a.atttypid OPERATOR(pg_catalog.=) '114'::pg_catalog.oid THEN 'json'::pg_catalog.text
    WHEN a.atttypid OPERATOR(pg_catalog.=) '3802'::pg_catalog.oid THEN 'jsonb'::pg_catalog.text
    ELSE ''::pg_catalog.text END,
  CASE WHEN c.relrowsecurity THEN pg_catalog.array_to_json(ARRAY(
      SELECT pg_catalog.json_build_object('name'::pg_catalog.text, p.polname, 'roles'::pg_catalog.text, ARRAY(
        SELECT CASE WHEN one OPERATOR(pg_catalog.=) '0'::pg_catalog.oid THEN 'public'::pg_catalog.name
          ELSE pg_catalog.pg_get_userbyid(one) END FROM pg_catalog.unnest(p.polroles) AS one))
      FROM pg_catalog.pg_policy p
      WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid
        AND p.polcmd::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,*}'::pg_catalog.text[])
      ORDER BY p.polname))::pg_catalog.text ELSE 'null'::pg_catalog.text END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
  AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT a.attisdropped
WHERE c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.text[])
  AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog."char"
  AND s.nspname OPERATOR(pg_catalog.<>) 'information_schema'::pg_catalog.name
  /* Names in other schemas cannot be looked up. */
  AND pg_catalog.has_schema_privilege(s.oid, 'USAGE'::pg_catalog.text)
ORDER BY s.nspname, c.relname, a.attnum
