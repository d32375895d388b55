package streams

import "container/heap"

// expiry is a heap of the streams that expire, the first one first.
type expiry struct{ streams []*Stream }

func (e *expiry) add(s *Stream) {
	if s.expires != 0 {
		heap.Push(e, s)
	}
}

func (e *expiry) remove(s *Stream) {
	if s.queued != 0 {
		heap.Remove(e, int(s.queued)-1)
	}
}

// next removes and returns a stream that has expired, or nil.
func (e *expiry) next(now int64) *Stream {
	if len(e.streams) == 0 || now < e.streams[0].expires {
		return nil
	}
	return heap.Pop(e).(*Stream)
}

// Len implements [heap.Interface], as do the following.
func (e *expiry) Len() int { return len(e.streams) }

// Less compares two streams.
func (e *expiry) Less(i, j int) bool { return e.streams[i].expires < e.streams[j].expires }

// Swap exchanges two streams.
func (e *expiry) Swap(i, j int) {
	e.streams[i], e.streams[j] = e.streams[j], e.streams[i]
	e.streams[i].queued, e.streams[j].queued = int32(i)+1, int32(j)+1
}

// Push appends a stream.
func (e *expiry) Push(s any) {
	e.streams = append(e.streams, s.(*Stream))
	e.streams[len(e.streams)-1].queued = int32(len(e.streams))
}

// Pop removes the last stream.
func (e *expiry) Pop() any {
	last := len(e.streams) - 1
	s := e.streams[last]
	e.streams[last], e.streams = nil, e.streams[:last]
	s.queued = 0
	return s
}
