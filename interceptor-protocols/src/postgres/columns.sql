UNION ALL
/* For labels: relations that come into it, with those that they are inherited from ('t'), their columns, each with those
   that it is generated from ('a'), where partitions number them otherwise ('d'), and what views show ('q'). */
SELECT k.what, k.n::pg_catalog.text, k.schema, k.name, k.oid::pg_catalog.text, k.number, k.more
FROM (
  WITH RECURSIVE kin(n, oid) AS (
    SELECT s.n, s.oid FROM seen s
    UNION
    SELECT k.n, i.inhparent
    FROM kin k
    JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) k.oid)
  SELECT 't'::pg_catalog.text AS what, k.n, s.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
    k.oid, c.relkind::pg_catalog.text AS number,
    (SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.text, ' '::pg_catalog.text)
      FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) k.oid) AS more
  FROM kin k
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.oid
  JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
  UNION ALL
  SELECT 'a'::pg_catalog.text, k.n, ''::pg_catalog.text, a.attname::pg_catalog.text, k.oid,
    a.attnum::pg_catalog.text,
    (SELECT pg_catalog.string_agg(m.found[1], ' '::pg_catalog.text)
      FROM pg_catalog.pg_attrdef d
      CROSS JOIN LATERAL pg_catalog.regexp_matches(d.adbin::pg_catalog.text,
        ':varattno (-?[0-9]+)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)
      WHERE d.adrelid OPERATOR(pg_catalog.=) k.oid AND d.adnum OPERATOR(pg_catalog.=) a.attnum
        AND a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog."char")
  FROM kin k
  JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) k.oid
    AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT a.attisdropped
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.oid
  /* A partition's columns are called as those of what it is a part of; below, the numbers of those that have others. */
  WHERE NOT c.relispartition OR EXISTS (SELECT 1 FROM root r WHERE r.n OPERATOR(pg_catalog.=) k.n
    AND r.oid OPERATOR(pg_catalog.=) k.oid)
  UNION ALL
  SELECT 'd'::pg_catalog.text, k.n, ''::pg_catalog.text, ''::pg_catalog.text, k.oid, ''::pg_catalog.text, d.more
  FROM kin k
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.oid AND c.relispartition
  CROSS JOIN LATERAL (
    SELECT pg_catalog.string_agg(pg_catalog.concat(p.attnum, ' '::pg_catalog.text, a.attnum), ' '::pg_catalog.text)
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_attribute p ON p.attrelid OPERATOR(pg_catalog.=) i.inhparent
      AND p.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT p.attisdropped
    JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) k.oid
      AND a.attname OPERATOR(pg_catalog.=) p.attname AND a.attnum OPERATOR(pg_catalog.<>) p.attnum
    WHERE i.inhrelid OPERATOR(pg_catalog.=) k.oid) AS d(more)
  WHERE d.more IS NOT NULL
  UNION ALL
  SELECT 'q'::pg_catalog.text, k.n, ''::pg_catalog.text, ''::pg_catalog.text, k.oid, ''::pg_catalog.text,
    w.ev_action::pg_catalog.text
  FROM kin k
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.oid
    AND (c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" OR c.relkind OPERATOR(pg_catalog.=) 'm'::pg_catalog."char")
  JOIN pg_catalog.pg_rewrite w ON w.ev_class OPERATOR(pg_catalog.=) k.oid
    AND w.ev_type OPERATOR(pg_catalog.=) '1'::pg_catalog."char") AS k
