package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/actors"
	"muster/cmd/muster/durable"
	"muster/cmd/muster/members"
)

func registerProcess(r prometheus.Registerer) {
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// registerCore shows the counters of the core.
func registerCore(r prometheus.Registerer, stats *actors.Stats) {
	counter := func(name, help string, n *atomic.Uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_core_" + name, Help: help},
			func() float64 { return float64(n.Load()) }))
	}
	gauge := func(name, help string, n *atomic.Int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_core_" + name, Help: help},
			func() float64 { return float64(n.Load()) }))
	}
	counter("messages_in_total", "Messages from edges.", &stats.Up)
	counter("messages_out_total", "Messages to edges.", &stats.Down)
	counter("messages_malformed_total", "Messages from edges that said nothing or came to the wrong shard.", &stats.Malformed)
	counter("messages_stale_total", "Messages of a link epoch that is over.", &stats.Stale)
	counter("activations_total", "User and room actors activated.", &stats.Spawned)
	counter("passivations_total", "User and room actors passivated.", &stats.Passivated)
	counter("panics_total", "Panics of activations and gateways.", &stats.Panics)
	counter("parked_total", "Activations parked after their third panic in a minute.", &stats.Parked)
	counter("reopened_total", "Shards reopened after a panic of their gateway.", &stats.Reopened)
	counter("late_ticks_total", "Deadlines that waited for a full inbox.", &stats.LateTicks)
	counter("unreachable_total", "Leases of edges that lapsed.", &stats.Unreachable)
	counter("proposals_total", "Durable changes and flushes handed to the shards' groups.", &stats.Proposals)
	counter("proposals_refused_total", "Proposals that were not taken: another leader, too many in flight, no room.", &stats.Refused)
	counter("busy_total", "Commands refused because too much was in flight, or for want of room on the disk.", &stats.Busy)
	counter("loads_total", "Users read from the store.", &stats.Loads)
	counter("flushes_total", "Proposals of nothing but lazy records.", &stats.Flushes)
	counter("resume_ahead_total", "Devices that had read more of an outbox than there is: acknowledged data was lost.", &stats.ResumeAhead)
	gauge("gated", "Steps whose effects wait for a commit.", &stats.Gated)
	gauge("transfers", "Changes told to another shard whose outcome is not known yet.", &stats.Transfers)
	gauge("users_resident", "Resident user actors.", &stats.Users)
	gauge("rooms_resident", "Resident room actors.", &stats.Rooms)
	r.MustRegister(newTimed("read_back_seconds", "Time to read a passivated user back and activate it.", actors.ReadBackBuckets[:],
		func(i int) uint64 { return stats.ReadBackIn[i].Load() }, &stats.ReadBackNanos))
}

// registerStorage shows what the disk and the Raft groups do.
func registerStorage(r prometheus.Registerer, d *durable.Node) {
	m := d.Meter
	counter := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_" + name, Help: help}, value))
	}
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_" + name, Help: help}, value))
	}
	counter("store_wal_bytes_total", "Bytes written to the write-ahead log.", func() float64 { return float64(m.LogBytes.Load()) })
	counter("store_written_bytes_total", "Bytes written to all files of the data directory.", func() float64 { return float64(m.AllBytes.Load()) })
	r.MustRegister(newTimed("store_sync_seconds", "Time that a sync of the write-ahead log took.", durable.SyncBuckets[:],
		func(i int) uint64 { return m.SyncedIn[i].Load() }, &m.SyncNanos))
	gauge("store_free_bytes", "Room left on the disk of the data directory.", func() float64 {
		free, _ := d.Store.Room()
		return float64(free)
	})
	gauge("store_low", "1 while the disk has too little room and durable changes are refused.", func() float64 {
		if _, low := d.Store.Room(); low {
			return 1
		}
		return 0
	})
	gauge("raft_shards_led", "Shards that this node leads.", func() float64 { return float64(d.Leads()) })
	gauge("raft_shards_without_leader", "Shards whose leader this node does not know.", func() float64 { return float64(d.Leaderless()) })
}

// timed is a histogram of what counts by itself: in holds one count more than there are bounds.
type timed struct {
	desc   *prometheus.Desc
	bounds []float64 // s
	in     func(i int) uint64
	nanos  *atomic.Uint64
}

func newTimed(name, help string, bounds []float64, in func(int) uint64, nanos *atomic.Uint64) timed {
	return timed{prometheus.NewDesc("muster_"+name, help, nil, nil), bounds, in, nanos}
}

func (t timed) Describe(out chan<- *prometheus.Desc) { out <- t.desc }

func (t timed) Collect(out chan<- prometheus.Metric) {
	buckets := map[float64]uint64{}
	sum := uint64(0)
	for i, bound := range t.bounds {
		sum += t.in(i)
		buckets[bound] = sum
	}
	out <- prometheus.MustNewConstHistogram(t.desc, sum+t.in(len(t.bounds)), float64(t.nanos.Load())/1e9, buckets)
}

func registerMembers(r prometheus.Registerer, m *members.Node) {
	for i, port := range []string{"gossip", "actor", "raft"} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "muster_cluster_sent_bytes_total", Help: "Bytes put on the network for the cluster, by port.", ConstLabels: prometheus.Labels{"port": port},
		}, func() float64 {
			gossip, actor, raft := m.Traffic()
			return float64([]uint64{gossip, actor, raft}[i])
		}))
	}
	for i, g := range []struct{ name, help string }{
		{"members", "Other processes that gossip sees."},
		{"actor_streams", "Other processes with which the actor port is connected."},
		{"raft_streams", "Other cores with which the Raft port is connected."},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_cluster_" + g.name, Help: g.help}, func() float64 {
			seen, actor, raft := m.Connected()
			return float64([]int{seen, actor, raft}[i])
		}))
	}
}
