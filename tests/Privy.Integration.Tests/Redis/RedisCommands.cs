namespace Privy.Integration.Tests;

/// <summary>A mixed workload, in order. Every reply depends on the commands before it alone: not on time, chance or the order inside a hash table.</summary>
internal static class RedisCommands
{
    public static readonly string[][] All = [.. """
        PING
        ECHO hello
        SELECT 1
        SET x other-database
        SELECT 0
        GET x
        SET s value
        GET s
        SET s other NX
        SET s third XX GET
        SETNX s no
        APPEND s -appended
        STRLEN s
        GETRANGE s 0 4
        SETRANGE s 2 ZZZ
        GETSET s again
        GETDEL s
        EXISTS s
        MSET a 1 b 2 c 3
        MGET a b c missing
        MSETNX a 5 z 6
        INCR a
        INCRBY a 41
        DECR a
        DECRBY a 10
        INCRBYFLOAT a 1.5
        INCR b
        SET text notanumber
        INCR text
        LPUSH text x
        TYPE text
        COPY a a-copy
        RENAME a-copy a-renamed
        RENAMENX a-renamed a
        TOUCH a b c
        OBJECT ENCODING a
        OBJECT ENCODING b
        OBJECT REFCOUNT missing
        SETEX short 1000 v
        PERSIST short
        TTL short
        EXPIRE short 1000 NX
        PERSIST short
        TTL missing
        RPUSH l 1 2 3 4 5
        LPUSH l 0
        LRANGE l 0 -1
        LINDEX l 3
        LSET l 3 three
        LINSERT l BEFORE three before-three
        LREM l 1 5
        LLEN l
        LPOP l
        RPOP l 2
        LTRIM l 0 1
        LMOVE l m LEFT RIGHT
        RPOPLPUSH l m
        LPOS m 1
        BLPOP m 1
        BRPOP nothing 0.01
        BLMPOP 0.01 1 nothing LEFT
        LMPOP 1 m RIGHT
        SADD set 1 2 3 4 5
        SADD set2 4 5 6
        SCARD set
        SISMEMBER set 3
        SMISMEMBER set 1 9
        SMEMBERS set
        SINTER set set2
        SINTERCARD 2 set set2
        SUNIONSTORE set3 set set2
        SDIFFSTORE set4 set set2
        SMEMBERS set4
        SORT set3 DESC
        SMOVE set set2 1
        SREM set 2
        OBJECT ENCODING set
        SADD set word
        OBJECT ENCODING set
        SSCAN set2 0 COUNT 100
        HSET h f1 v1 f2 v2 n 10
        HGET h f1
        HMGET h f1 f3 n
        HGETALL h
        HINCRBY h n 5
        HINCRBYFLOAT h n 0.25
        HKEYS h
        HVALS h
        HLEN h
        HSTRLEN h f1
        HEXISTS h f2
        HSETNX h f1 x
        HDEL h f2 f9
        HSCAN h 0
        OBJECT ENCODING h
        ZADD z 1 one 2 two 3 three 4 four
        ZADD z GT CH 5 one
        ZADD z INCR 2 two
        ZSCORE z two
        ZMSCORE z one nope
        ZRANGE z 0 -1 WITHSCORES
        ZRANGE z 0 -1 REV
        ZRANGE z (2 +inf BYSCORE LIMIT 0 2
        ZRANGEBYLEX z - +
        ZRANK z four
        ZREVRANK z four
        ZCOUNT z 2 4
        ZINCRBY z 1.5 three
        ZPOPMIN z
        ZPOPMAX z 1
        BZPOPMIN z 1
        ZADD y 10 one 20 nine
        ZADD z 1 one
        ZUNIONSTORE u 2 z y WEIGHTS 2 1 AGGREGATE MAX
        ZRANGE u 0 -1 WITHSCORES
        ZINTERSTORE i 2 z y
        ZDIFF 2 y z WITHSCORES
        ZRANGESTORE r y 0 0
        ZREMRANGEBYSCORE y 15 25
        ZSCAN y 0
        ZRANDMEMBER missing
        SETBIT bits 7 1
        SETBIT bits 100 1
        GETBIT bits 100
        BITCOUNT bits
        BITPOS bits 1
        BITOP NOT notbits bits
        BITFIELD bits SET u8 0 200 GET u8 0 INCRBY i5 100 1
        PFADD hll a b c d e f g
        PFCOUNT hll
        PFADD hll2 g h i
        PFMERGE hll3 hll hll2
        PFCOUNT hll3
        GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
        GEODIST geo Palermo Catania km
        GEOHASH geo Palermo Catania
        GEOPOS geo Palermo
        GEOSEARCH geo FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST
        XADD stream 1-1 name value
        XADD stream 1-2 name other
        XADD stream 0-5 name late
        XADD stream 2-* n 3
        XLEN stream
        XRANGE stream - +
        XREVRANGE stream + - COUNT 1
        XREAD COUNT 2 STREAMS stream 0
        XREAD BLOCK 10 STREAMS stream 99
        XGROUP CREATE stream g 0
        XREADGROUP GROUP g alice COUNT 1 STREAMS stream >
        XPENDING stream g
        XACK stream g 1-1
        XDEL stream 1-2
        XTRIM stream MAXLEN 1
        XINFO GROUPS stream
        MULTI
        SET in-transaction 1
        INCR in-transaction
        LPUSH in-transaction x
        EXEC
        MULTI
        SET dropped 1
        DISCARD
        GET dropped
        WATCH a
        MULTI
        NOSUCHCOMMAND
        EXEC
        UNWATCH
        EVAL return{KEYS[1],ARGV[1],redis.call('GET','b')} 1 k v
        EVAL return(redis.call('INCR','counter')) 0
        EVAL return{1,2,{3,'four'},false,nil,5} 0
        EVAL error('thrown') 0
        EVAL return(redis.sha1hex('')) 0
        EVAL return(cjson.encode({1,2,{a=3}})) 0
        EVAL return(cmsgpack.unpack(cmsgpack.pack('packed'))) 0
        SCRIPT LOAD return(7)
        SCRIPT EXISTS 0000000000000000000000000000000000000000
        EVALSHA ffffffffffffffffffffffffffffffffffffffff 0
        DUMP c
        RESTORE restored 0 garbage
        SORT l ALPHA LIMIT 0 2
        PUBLISH nobody hello
        PUBSUB CHANNELS
        PUBSUB NUMSUB x
        SUBSTR s 0 1
        LCS a b
        CLIENT SETNAME tester
        CLIENT GETNAME
        CONFIG GET maxmemory
        CONFIG SET maxmemory-policy allkeys-lru
        CONFIG GET maxmemory-policy
        CONFIG SET maxmemory-policy noeviction
        COMMAND COUNT
        MEMORY USAGE a
        OBJECT FREQ a
        DBSIZE
        SWAPDB 0 1
        GET x
        SWAPDB 0 1
        MOVE c 1
        KEYS missing*
        SAVE
        LASTSAVE extra
        GET
        SET a
        HSET a f v
        WRONGCOMMAND with arguments
        AUTH nobody nothing
        ACL WHOAMI
        ACL CAT dangerous extra
        RESET
        LOLWUT VERSION 99999
        FUNCTION LIST
        WAIT 0 10
        FAILOVER ABORT
        DEBUG SLEEP 0.01
        DEBUG JMAP
        FLUSHDB
        DBSIZE
        """.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)),
        // long values, many elements, binary
        ["SET", "long", new string('x', 3_000_000)],
        ["STRLEN", "long"],
        ["GET", "long"],
        ["SET", "binary", "\0\u0001\r\n\u007f"],
        ["GET", "binary"],
        ["EVAL", "for i = 1, 50000 do redis.call('RPUSH', KEYS[1], 'element ' .. i) redis.call('HSET', KEYS[2], 'f' .. i, i) redis.call('ZADD', KEYS[3], i % 977, i) end return 1", "3", "list", "hash", "zset"],
        ["LRANGE", "list", "0", "-1"],
        ["ZRANGE", "zset", "0", "-1"],
        ["HLEN", "hash"],
        ["HGET", "hash", "f4711"],
        ["LREM", "list", "0", "element 777"],
        ["UNLINK", "list", "hash"],
        ["DBSIZE"],
    ];
}
