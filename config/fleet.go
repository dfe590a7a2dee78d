package config

import (
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// fleet reads where the other sidecars are told and heard; the zero value is nowhere.
func (r *reader) fleet(v value) fleet.Config {
	if !v.present() {
		return fleet.Config{}
	}
	m := v.mapping(invalidationKeys...)
	redis := m.at("redis")
	if !redis.present() || redis.isNull() {
		if m.valid && !m.meant["redis"] {
			redis.mistake("is missing: say where the fleet's Redis is, redis: {url: …}; or remove invalidation")
		}
		return fleet.Config{}
	}
	return r.redis(redis.mapping(redisKeys...))
}

func (r *reader) redis(m mapping) fleet.Config {
	if !m.valid {
		return fleet.Config{}
	}
	url := m.at("url")
	c := fleet.Config{
		PasswordFile: r.file(m.at("password_file")),
		CAFile:       r.file(m.at("ca_file")),
		Stream:       fleet.DefaultStream,
	}
	if stream := m.at("stream"); stream.present() {
		c.Stream = stream.filledText()
	}
	if !url.present() && m.meant["url"] {
		return c // the misspelt key is noted already
	}
	if c.URL = redact.New(url.requiredText()); c.URL.IsEmpty() {
		return c
	}
	if err := c.Check(); err != nil {
		url.mistake("%s", err)
	}
	return c
}
