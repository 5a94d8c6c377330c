-- From where the owner of an account has logged in lately: wrong guesses from there are counted apart from those of
-- strangers, who cannot keep the owner out.
CREATE TABLE known_places (
  member BIGINT NOT NULL,
  place  {bytes} NOT NULL,                -- SHA-256 of a block of network addresses, or of what a browser keeps
  seen   BIGINT NOT NULL,                 -- ms
  PRIMARY KEY (member, place)
){norowid};

-- Wrong second factors of an account, by who has shown them: '' are strangers. The older table counted all together.
DROP TABLE factor_attempts;
CREATE TABLE factor_attempts (
  member  BIGINT NOT NULL,
  who     {text} NOT NULL,
  wrong   BIGINT NOT NULL,                -- since the last right one, or the last quiet time
  latest  BIGINT NOT NULL,                -- ms
  blocked BIGINT NOT NULL,                -- ms until which none is looked at, 0: not
  PRIMARY KEY (member, who)
){norowid};
