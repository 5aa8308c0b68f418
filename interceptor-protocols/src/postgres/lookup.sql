/* interceptor: what the names in the next statement mean, and what happens besides when they are used */
WITH RECURSIVE
asked(n, t) AS (
  SELECT o.n, o.t FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS o(t, n)),
root(n, oid) AS (
  SELECT a.n, pg_catalog.to_regclass(a.t)::pg_catalog.oid FROM asked a),
/* Relations that come into it: those that views, materialized views and row security name ('v'), children ('h'),
   partitions ('p'). What only a materialized view's query names is used when that is refreshed, and so is lazy. */
reach(n, oid, how, lazy) AS (
  SELECT r.n, r.oid, 'r'::pg_catalog.text, false FROM root r WHERE r.oid IS NOT NULL
  UNION
  SELECT r.n, s.oid, s.how, r.lazy OR s.lazy
  FROM reach r
  CROSS JOIN LATERAL (
    SELECT m.found[1]::pg_catalog.oid, 'v'::pg_catalog.text, c.relkind OPERATOR(pg_catalog.=) 'm'::pg_catalog."char"
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_rewrite w ON w.ev_class OPERATOR(pg_catalog.=) c.oid
    CROSS JOIN LATERAL pg_catalog.regexp_matches(w.ev_action::pg_catalog.text,
      ':relid ([1-9][0-9]*)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)
    WHERE c.oid OPERATOR(pg_catalog.=) r.oid AND (c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
      OR c.relkind OPERATOR(pg_catalog.=) 'm'::pg_catalog."char")
    UNION ALL
    SELECT m.found[1]::pg_catalog.oid, 'v'::pg_catalog.text, false
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_policy p ON p.polrelid OPERATOR(pg_catalog.=) c.oid
    CROSS JOIN LATERAL pg_catalog.regexp_matches(pg_catalog.concat(p.polqual::pg_catalog.text,
      p.polwithcheck::pg_catalog.text),
      ':relid ([1-9][0-9]*)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)
    WHERE c.oid OPERATOR(pg_catalog.=) r.oid AND c.relrowsecurity
    UNION ALL
    SELECT c.oid, CASE WHEN c.relispartition THEN 'p'::pg_catalog.text
      WHEN r.how OPERATOR(pg_catalog.=) 'v'::pg_catalog.text THEN 'v'::pg_catalog.text
      ELSE 'h'::pg_catalog.text END, false
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
    WHERE i.inhparent OPERATOR(pg_catalog.=) r.oid) AS s(oid, how, lazy)),
seen(n, oid, lazy) AS (
  SELECT r.n, r.oid, pg_catalog.bool_and(r.lazy) FROM reach r GROUP BY r.n, r.oid),
/* What foreign keys do to other relations when rows are deleted: 'd' they go too, 'u' they are changed. */
follows(n, oid, event) AS (
  SELECT s.n, s.oid, 'd'::pg_catalog.text FROM seen s WHERE NOT s.lazy
  UNION
  SELECT f.n, k.conrelid, CASE WHEN k.confdeltype OPERATOR(pg_catalog.=) 'c'::pg_catalog."char"
    THEN 'd'::pg_catalog.text ELSE 'u'::pg_catalog.text END
  FROM follows f
  JOIN pg_catalog.pg_constraint k ON k.confrelid OPERATOR(pg_catalog.=) f.oid
    AND k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog."char"
  WHERE f.event OPERATOR(pg_catalog.=) 'd'::pg_catalog.text
    AND (k.confdeltype OPERATOR(pg_catalog.=) 'c'::pg_catalog."char"
    OR k.confdeltype OPERATOR(pg_catalog.=) 'n'::pg_catalog."char"
    OR k.confdeltype OPERATOR(pg_catalog.=) 'd'::pg_catalog."char")),
/* When it fires is told in letters: r read, i insert, u update, d delete, t truncate, s schema and maintenance. */
trigger(n, at, oid, code) AS (
  SELECT s.n, pg_catalog.concat(
      CASE WHEN (t.tgtype OPERATOR(pg_catalog.&) '4'::pg_catalog.int2) OPERATOR(pg_catalog.<>) '0'::pg_catalog.int2 THEN 'i'::pg_catalog.text END,
      CASE WHEN (t.tgtype OPERATOR(pg_catalog.&) '8'::pg_catalog.int2) OPERATOR(pg_catalog.<>) '0'::pg_catalog.int2 THEN 'd'::pg_catalog.text END,
      CASE WHEN (t.tgtype OPERATOR(pg_catalog.&) '16'::pg_catalog.int2) OPERATOR(pg_catalog.<>) '0'::pg_catalog.int2 THEN 'u'::pg_catalog.text END,
      CASE WHEN (t.tgtype OPERATOR(pg_catalog.&) '32'::pg_catalog.int2) OPERATOR(pg_catalog.<>) '0'::pg_catalog.int2 THEN 't'::pg_catalog.text END),
    t.tgfoid, t.tgqual::pg_catalog.text
  FROM seen s
  JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) s.oid
  WHERE NOT t.tgisinternal OR t.tgfoid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  UNION ALL
  SELECT f.n, 'd'::pg_catalog.text, t.tgfoid, t.tgqual::pg_catalog.text
  FROM follows f
  JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) f.oid
   AND (t.tgtype OPERATOR(pg_catalog.&) CASE WHEN f.event OPERATOR(pg_catalog.=) 'd'::pg_catalog.text
     THEN '8'::pg_catalog.int2 ELSE '16'::pg_catalog.int2 END) OPERATOR(pg_catalog.<>) '0'::pg_catalog.int2
  WHERE NOT t.tgisinternal OR t.tgfoid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid),
tree(n, at, code) AS (
  SELECT s.n, CASE WHEN s.lazy THEN 'u'::pg_catalog.text ELSE e.at END, e.code
  FROM seen s
  CROSS JOIN LATERAL (
    SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" THEN 'riud'::pg_catalog.text
      ELSE 'u'::pg_catalog.text END, w.ev_action::pg_catalog.text
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_rewrite w ON w.ev_class OPERATOR(pg_catalog.=) c.oid
    WHERE c.oid OPERATOR(pg_catalog.=) s.oid AND (c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
      OR c.relkind OPERATOR(pg_catalog.=) 'm'::pg_catalog."char")
    UNION ALL
    SELECT 'riud'::pg_catalog.text, pg_catalog.concat(p.polqual::pg_catalog.text, p.polwithcheck::pg_catalog.text)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_policy p ON p.polrelid OPERATOR(pg_catalog.=) c.oid
    WHERE c.oid OPERATOR(pg_catalog.=) s.oid AND c.relrowsecurity
    UNION ALL
    SELECT CASE WHEN a.attgenerated OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
      THEN 'riuds'::pg_catalog.text ELSE 'ius'::pg_catalog.text END, d.adbin::pg_catalog.text
    FROM pg_catalog.pg_attrdef d
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid
      AND a.attnum OPERATOR(pg_catalog.=) d.adnum
    WHERE d.adrelid OPERATOR(pg_catalog.=) s.oid
    UNION ALL
    SELECT 'ius'::pg_catalog.text, k.conbin::pg_catalog.text
    FROM pg_catalog.pg_constraint k
    WHERE k.conrelid OPERATOR(pg_catalog.=) s.oid AND k.contype OPERATOR(pg_catalog.=) 'c'::pg_catalog."char"
    UNION ALL
    SELECT 'ius'::pg_catalog.text, pg_catalog.concat(i.indexprs::pg_catalog.text, i.indpred::pg_catalog.text)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid OPERATOR(pg_catalog.=) s.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
    UNION ALL
    SELECT 'riuds'::pg_catalog.text, p.partexprs::pg_catalog.text
    FROM pg_catalog.pg_partitioned_table p
    WHERE p.partrelid OPERATOR(pg_catalog.=) s.oid) AS e(at, code)
  UNION ALL
  SELECT t.n, t.at, t.code FROM trigger t
  UNION ALL
  /* Casts, and what domains check: whatever a statement converts. */
  SELECT '0'::pg_catalog.int8, 'k'::pg_catalog.text, k.conbin::pg_catalog.text
  FROM pg_catalog.pg_constraint k
  WHERE k.contypid OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid),
runs(n, at, oid) AS (
  SELECT t.n, t.at, m.found[1]::pg_catalog.oid
  FROM tree t
  CROSS JOIN LATERAL pg_catalog.regexp_matches(t.code,
    ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([1-9][0-9]*)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)
  UNION
  SELECT t.n, t.at, o.oprcode::pg_catalog.oid
  FROM tree t
  CROSS JOIN LATERAL pg_catalog.regexp_matches(t.code, ':(?:opno|eqop|sortop) ([1-9][0-9]*)'::pg_catalog.text,
    'g'::pg_catalog.text) AS m(found)
  JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) m.found[1]::pg_catalog.oid
  WHERE o.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  UNION
  SELECT t.n, t.at, t.oid FROM trigger t
  UNION
  SELECT s.n, 'riuds'::pg_catalog.text, a.amproc::pg_catalog.oid
  FROM seen s
  JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) s.oid
  CROSS JOIN LATERAL pg_catalog.unnest(i.indclass::pg_catalog.oid[]) AS k(oid)
  JOIN pg_catalog.pg_opclass c ON c.oid OPERATOR(pg_catalog.=) k.oid
  JOIN pg_catalog.pg_amproc a ON a.amprocfamily OPERATOR(pg_catalog.=) c.opcfamily
  WHERE c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
    AND a.amproc::pg_catalog.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  UNION
  SELECT '0'::pg_catalog.int8, 'k'::pg_catalog.text, c.castfunc
  FROM pg_catalog.pg_cast c
  JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
  WHERE c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
    AND p.prolang OPERATOR(pg_catalog.<>) '12'::pg_catalog.oid
    AND p.prolang OPERATOR(pg_catalog.<>) '13'::pg_catalog.oid
  UNION
  SELECT '0'::pg_catalog.int8, 'e'::pg_catalog.text, e.evtfoid
  FROM pg_catalog.pg_event_trigger e
  WHERE e.evtenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"),
called(n, s, t) AS (
  SELECT o.n, o.s, o.t FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.text[]),
    pg_catalog.unnest($3::pg_catalog.text[])) WITH ORDINALITY AS o(s, t, n))
/* scope */
UNION ALL
SELECT 'r'::pg_catalog.text, r.n::pg_catalog.text, s.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.oid::pg_catalog.text, c.relkind::pg_catalog.text,
  (EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid
    AND w.ev_type OPERATOR(pg_catalog.<>) '1'::pg_catalog."char"))::pg_catalog.text
FROM root r
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
/* What is read ('v', lazily 'm'), a child ('h'), or foreign ('l'). */
SELECT k.what, k.n::pg_catalog.text, s.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.oid::pg_catalog.text, c.relkind::pg_catalog.text, ''::pg_catalog.text
FROM (
  SELECT DISTINCT r.n, r.oid, CASE WHEN r.how OPERATOR(pg_catalog.=) 'h'::pg_catalog.text
    THEN 'h'::pg_catalog.text WHEN e.lazy THEN 'm'::pg_catalog.text
    ELSE 'v'::pg_catalog.text END
  FROM reach r
  JOIN seen e ON e.n OPERATOR(pg_catalog.=) r.n AND e.oid OPERATOR(pg_catalog.=) r.oid
  JOIN root o ON o.n OPERATOR(pg_catalog.=) r.n AND o.oid OPERATOR(pg_catalog.<>) r.oid
  WHERE r.how OPERATOR(pg_catalog.=) 'v'::pg_catalog.text OR r.how OPERATOR(pg_catalog.=) 'h'::pg_catalog.text
  UNION ALL
  SELECT e.n, e.oid, 'l'::pg_catalog.text
  FROM seen e
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) e.oid
    AND c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog."char") AS k(n, oid, what)
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT 'c'::pg_catalog.text, f.n::pg_catalog.text, s.nspname::pg_catalog.text, c.relname::pg_catalog.text,
  c.oid::pg_catalog.text, f.event, ''::pg_catalog.text
FROM follows f
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE NOT EXISTS (SELECT 1 FROM seen e WHERE e.n OPERATOR(pg_catalog.=) f.n
  AND e.oid OPERATOR(pg_catalog.=) f.oid AND f.event OPERATOR(pg_catalog.=) 'd'::pg_catalog.text)
UNION ALL
SELECT 'x'::pg_catalog.text, r.n::pg_catalog.text, s.nspname::pg_catalog.text, p.proname::pg_catalog.text,
  p.oid::pg_catalog.text,
  (s.nspname OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.name
    AND p.oid OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid)::pg_catalog.text, r.at
FROM runs r
JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) r.oid
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
UNION ALL
/* Operators of somebody's own that a name in the statement may mean. */
SELECT 'o'::pg_catalog.text, o.oprname::pg_catalog.text, s.nspname::pg_catalog.text, p.proname::pg_catalog.text,
  p.oid::pg_catalog.text,
  (s.nspname OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.name
    AND p.oid OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid)::pg_catalog.text, ''::pg_catalog.text
FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
JOIN pg_catalog.pg_namespace w ON w.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE o.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND w.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true))
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
UNION ALL
SELECT 'n'::pg_catalog.text, '0'::pg_catalog.text, s.nspname::pg_catalog.text, p.proname::pg_catalog.text,
  p.oid::pg_catalog.text,
  (s.nspname OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.name
    AND p.oid OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid)::pg_catalog.text, p.proargtypes::pg_catalog.text
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.oid OPERATOR(pg_catalog.=) ANY ($4::pg_catalog.oid[])
LIMIT 8192
