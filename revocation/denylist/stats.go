package denylist

// Stats are counts for metrics. Those without a remark only grow.
type Stats struct {
	Entries    int   // held now, ended ones included that are not deleted yet
	MaxEntries int   // as configured
	Bytes      int64 // of the index now
	Shapes     int   // in use now
	Missing    int   // entries known not to be held now

	Inserted  uint64 // new entries
	Merged    uint64 // decisions that made an existing entry stricter
	Expired   uint64 // entries deleted after their end
	Restored  uint64 // entries undone
	CapHits   uint64 // entries not held because MaxEntries was reached
	ShapeHits uint64 // entries not held because too many shapes were in use

	CacheHits      uint64
	CacheMisses    uint64
	CacheDrops     uint64 // records that ristretto refused
	CacheEvictions uint64
	CacheBytes     int64 // now, with overhead
}

// counts are those of Stats that the writer counts.
type counts struct {
	inserted, merged, expired, restored, capHits, shapeHits uint64
}

// Stats returns the present counts.
func (d *Denylist) Stats() Stats {
	d.mu.Lock()
	s := Stats{
		Entries:    d.index.live,
		MaxEntries: d.limits.max,
		Bytes:      d.index.bytes,
		Shapes:     d.shapes.busy(),
		Inserted:   d.counts.inserted,
		Merged:     d.counts.merged,
		Expired:    d.counts.expired,
		Restored:   d.counts.restored,
		CapHits:    d.counts.capHits,
		ShapeHits:  d.counts.shapeHits,
	}
	d.mu.Unlock()
	s.Missing = d.lack.count()
	d.cache.counts(&s)
	return s
}
