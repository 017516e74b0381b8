# Puts what the program stands on into /opt/kproxy, and nothing that it does not import.
# Runs in a build stage, with requirements.txt and constraints.txt beside it.
cd "$(dirname "$0")"

python3 -m venv /build
/build/bin/pip install --quiet --disable-pip-version-check setuptools==84.2.1
# Debug information would name the temporary folder that it was compiled in.
CFLAGS=-g0 /build/bin/pip wheel --quiet --no-build-isolation -w /wheels \
    -r requirements.txt -c constraints.txt

# Two thirds of it all belong to the kubernetes package: a second client, for asyncio, with what
# that needs, and a class for each kind of object and request. kproxy takes configuration and
# transport from it alone; the classes are loaded where they are named, so they are not missed.
rm /wheels/aiohttp* /wheels/aiosignal* /wheels/attrs* /wheels/frozenlist* /wheels/multidict* \
    /wheels/propcache* /wheels/yarl* /wheels/aiohappyeyeballs*
python3 -m venv --without-pip /opt/kproxy
/build/bin/pip --python /opt/kproxy/bin/python install --quiet --no-compile --no-deps --no-index \
    /wheels/*
packages=/opt/kproxy/lib/python3.11/site-packages
rm -r $packages/kubernetes/aio
find $packages/kubernetes/client/api $packages/kubernetes/client/models \
    -name '*.py' ! -name __init__.py -delete
find /opt/kproxy/bin -type f -delete

python3 -m compileall -q --invalidation-mode unchecked-hash $packages
