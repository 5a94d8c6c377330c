-- From where the owner of an account has logged in lately: wrong guesses from there are counted apart from those of
-- strangers, who cannot keep the owner out. Only who has shown all that the account asks for makes a place known; where it was
-- merely seen, by an app password for instance, stands in places.
CREATE TABLE known_places (
  member BIGINT NOT NULL,
  place  {bytes} NOT NULL,                -- SHA-256 of a block of network addresses, or of what a browser keeps
  seen   BIGINT NOT NULL,                 -- ms
  PRIMARY KEY (member, place)
){norowid};

-- Wrong second factors of an account, by who has shown them: '' are strangers. The older factor_attempts counted all together;
-- nodes of the version before do so while a cluster is upgraded (threats N06), so that it goes in a later version.
CREATE TABLE factor_guesses (
  member  BIGINT NOT NULL,
  who     {text} NOT NULL,
  wrong   BIGINT NOT NULL,                -- since the last right one, or the last quiet time
  latest  BIGINT NOT NULL,                -- ms
  blocked BIGINT NOT NULL,                -- ms until which none is looked at, 0: not
  PRIMARY KEY (member, who)
){norowid};
