package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
)

// bucket is the vault that is a bucket of an S3 service. Nobody else is ever led there: what it holds is read by this
// server and passed on (threats M07). Objects are named by our keys alone, and no permission is given with any.
type bucket struct {
	marks
	core minio.Core
	name string
	log  *slog.Logger
}

// Bounds of what is asked of an S3 service.
const (
	bucketTries   = 3                // of one request
	bucketHeaders = 2 * time.Minute  // until an answer begins; putting a large upload together takes long
	bucketPut     = 10 * time.Minute // for the bytes of one request
	bucketSmall   = 30 * time.Second // for a request without bytes
	bucketPrefix  = "media/"
	bucketProbe   = "conclave-probe"
	sumHeader     = "Conclave-Sha256" // of the metadata of an object
)

// openBucket makes sure that the bucket is there, can be written and read, and is not public.
func openBucket(conf config.S3, log *slog.Logger) func(marks) (vault, error) {
	return func(m marks) (vault, error) {
		b := &bucket{marks: m, name: conf.Bucket, log: log}
		var err error
		if b.core, err = s3Client(conf, credentials.NewStaticV4(conf.AccessKey, conf.SecretKey.Reveal(), "")); err != nil {
			return nil, fmt.Errorf("media.s3: %w", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), bucketSmall)
		defer cancel()
		if err := b.probe(ctx, conf); err != nil {
			return nil, fmt.Errorf("media.s3: the bucket %s at %s: %w", conf.Bucket, conf.Endpoint, err)
		}
		return b, nil
	}
}

// s3Client is a client of the S3 service. The operator has named it, so it may be in the private network, but as
// everywhere nothing goes through a proxy that the environment names, and no redirect is followed.
func s3Client(conf config.S3, who *credentials.Credentials) (minio.Core, error) {
	u, err := url.Parse(conf.Endpoint)
	if err != nil {
		return minio.Core{}, err
	}
	everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	transport := &http.Transport{
		DialContext: netguard.NewDialer(everywhere, nil).DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: bucketHeaders,
		MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, ExpectContinueTimeout: time.Second, DisableCompression: true,
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: who, Secure: u.Scheme == "https", Transport: transport, Region: conf.Region, MaxRetries: bucketTries,
	})
	if err != nil {
		return minio.Core{}, err
	}
	return *client, nil
}

// probe writes an object, reads it, and sees to it that nobody can who has no key.
func (b *bucket) probe(ctx context.Context, conf config.S3) error {
	text := []byte("Conclave keeps media here.\n")
	if _, err := b.write(ctx, bucketProbe, bytes.NewReader(text), int64(len(text)), sumOf(text)); err != nil {
		return err
	}
	nobody, err := s3Client(conf, credentials.NewStaticV4("", "", ""))
	if err != nil {
		return err
	}
	if _, err := nobody.StatObject(ctx, b.name, bucketProbe, minio.StatObjectOptions{}); err == nil {
		return errors.New("everybody can read it; make it private")
	}
	return nil
}

func sumOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

func (b *bucket) object(key string) string { return bucketPrefix + key }

// fails is an error of the S3 service as a client hears of it: the administrator has to look.
func (b *bucket) fails(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if missing(err) {
		return fs.ErrNotExist
	}
	if ctx.Err() == nil {
		b.log.Warn("the S3 service of media did not do as it was asked", "what", what, "err", err)
	}
	return matrix.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "The server's store of files does not answer as it should. Try again soon.").With(err)
}

// missing says whether the S3 service has no such object.
func missing(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.Code == minio.NoSuchKey
}

// write stores an object. The service checks the hash before it has it, and what it then says of it is looked at, so that
// nothing is acknowledged that it has not whole.
func (b *bucket) write(ctx context.Context, object string, from io.Reader, size int64, sum []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bucketPut)
	defer cancel()
	text := hex.EncodeToString(sum)
	// No threads and no pieces: a request for an object, signed with its hash.
	o := minio.PutObjectOptions{DisableContentSha256: true, UserMetadata: map[string]string{sumHeader: text}}
	put, err := b.core.PutObject(ctx, b.name, object, from, size, "", text, o)
	if err != nil {
		return "", err
	}
	seen, err := b.core.StatObject(ctx, b.name, object, minio.StatObjectOptions{})
	if err != nil {
		return "", err
	}
	if got := seen.UserMetadata[sumHeader]; seen.Size != size || !strings.EqualFold(got, text) {
		return "", fmt.Errorf("it has %d bytes of %q instead of %d of %q", seen.Size, got, size, text)
	}
	return put.ETag, nil
}

func (b *bucket) put(ctx context.Context, key string, from *os.File, size int64, sum []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	_, err := b.write(ctx, b.object(key), io.NewSectionReader(from, 0, size), size, sum)
	return b.fails(ctx, "storing a file", err)
}

func (b *bucket) size(ctx context.Context, key string) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, bucketSmall)
	defer cancel()
	seen, err := b.core.StatObject(ctx, b.name, b.object(key), minio.StatObjectOptions{})
	return seen.Size, b.fails(ctx, "looking for a file", err)
}

func (b *bucket) open(ctx context.Context, key string, size int64) (io.ReadSeekCloser, error) {
	have, err := b.size(ctx, key)
	if err != nil {
		return nil, err
	}
	if have != size {
		return nil, b.fails(ctx, "reading a file", fmt.Errorf("%s has %d bytes instead of %d", key, have, size))
	}
	return &objectReader{ctx: ctx, b: b, object: b.object(key), size: size}, nil
}

func (b *bucket) remove(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bucketSmall)
	defer cancel()
	err := b.core.RemoveObject(ctx, b.name, b.object(key), minio.RemoveObjectOptions{})
	return ignoreMissing(b.fails(ctx, "removing a file", err))
}

// objectReader reads an object from where it stands. A request is made when the first byte is wanted, for all that
// follows; it ends when the reader is moved or closed.
type objectReader struct {
	ctx    context.Context //nolint:containedctx // of the request that reads
	b      *bucket
	object string
	size   int64
	at     int64
	body   io.ReadCloser
}

// Read implements io.Reader.
func (o *objectReader) Read(p []byte) (int, error) {
	if o.at >= o.size {
		return 0, io.EOF
	}
	if o.body == nil {
		var opts minio.GetObjectOptions
		if err := opts.SetRange(o.at, o.size-1); err != nil {
			return 0, err
		}
		body, _, _, err := o.b.core.GetObject(o.ctx, o.b.name, o.object, opts)
		if err != nil {
			return 0, o.b.fails(o.ctx, "reading a file", err)
		}
		o.body = body
	}
	n, err := o.body.Read(p)
	o.at += int64(n)
	if errors.Is(err, io.EOF) && o.at < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements io.Seeker.
func (o *objectReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	if offset != o.at {
		_ = o.Close() // what was asked for is no longer wanted
		o.at = offset
	}
	return offset, nil
}

// Close implements io.Closer.
func (o *objectReader) Close() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
