package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics is the process's registry and the metrics every API shares. A nil *Metrics counts nothing, so that tests need not make one.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics makes a registry with the collectors of the process and of the Go runtime, and the build's version.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "conclave_requests_total", Help: "Requests answered, by API, operation of the specification and class of status.",
		}, []string{"api", "operation", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "conclave_request_duration_seconds", Help: "Time from a request's header to the end of its answer; long polls included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"api", "operation"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "conclave_build_info", Help: "Always 1; the label says which version runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.duration, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registerer is where a package registers metrics of its own. It must not be asked of a nil *Metrics.
func (m *Metrics) Registerer() prometheus.Registerer { return m.registry }

// Count shows a number that something counts by itself and that only grows.
func (m *Metrics) Count(name, help string, value func() int64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
}

// Request counts an answered request. The operation is the operationID of a route table, never text of the request: labels must be few.
func (m *Metrics) Request(api, operation string, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(api, operation, statusClass(status)).Inc()
	m.duration.WithLabelValues(api, operation).Observe(took.Seconds())
}

func statusClass(status int) string {
	switch {
	case status == 429:
		return "429" // worth telling from other refusals: limits that are too tight show here
	case status >= 100 && status < 600:
		return string(rune('0'+status/100)) + "xx"
	}
	return "other"
}
