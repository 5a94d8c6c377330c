package main

import (
	"conclave/internal/limits"
)

// makeLimits makes what counts requests: for this node, or with others over Redis.
func (s *server) makeLimits() error {
	secrets, err := s.conf.Secrets()
	if err != nil {
		return err
	}
	key := secrets.Derive("names of rate limits")
	o := limits.Options{Enabled: s.conf.RateLimits.Enabled, Key: key[:], Log: s.log}
	if s.conf.Redis.URL.Reveal() != "" {
		roots, err := trusted("redis.ca_file", s.conf.Redis.CAFile)
		if err != nil {
			return err
		}
		o.Redis = &limits.Redis{URL: s.conf.Redis.URL, Roots: roots}
	}
	s.limits, err = limits.New(o)
	return err
}
