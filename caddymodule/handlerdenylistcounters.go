package caddymodule

import "github.com/prometheus/client_golang/prometheus"

// checkCounters holds the children of one counter, looked up once: a lookup by
// label allocates.
type checkCounters struct {
	vec      *prometheus.CounterVec
	byResult [results]prometheus.Counter
}

func newCheckCounters(name, help string) *checkCounters {
	c := &checkCounters{
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, []string{"result"}),
	}
	for r, name := range resultNames {
		c.byResult[r] = c.vec.WithLabelValues(name)
	}
	return c
}

func (c *checkCounters) of(r result) prometheus.Counter { return c.byResult[r] }
